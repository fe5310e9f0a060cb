"""How fast csvi trains: a step of each method against the bare network, and against a step as most code writes it.

    python benchmarks/training.py [--compile] [--profile] [--peak TFLOPS]

All contestants train on the same batch of noise and take turns, so that there is nothing to load and what else the
machine does hits them all alike. `bare` is forward, backward and SGD of the two-stream backbone with one linear head,
in csvi's precision and memory format. `as usual` is csvi's Baseline, loss for loss, as most public code writes it: in
float32 and NCHW, with a loop over the parts in the network, loops over parts and identities in the losses, PyTorch's
default optimiser, and a look at the loss after every step. That it is the same Baseline is checked first.
"""

import argparse
import statistics
import sys
from collections.abc import Callable

import torch
from common import BenchmarkError, Finding, Seconds, machine, parser_of, positive, ratio, run, take_turns, time_call
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.autograd.profiler_util import EventList
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from csvi.catalogue import TABLE_3
from csvi.config import Config, DataConfig, TrainConfig
from csvi.data.batch import Batch, prepare
from csvi.data.views import Views
from csvi.fabric import make_fabric
from csvi.methods import METHODS, build_method
from csvi.methods.baseline import BaselineSettings
from csvi.methods.coseg import CoSeg
from csvi.model.net import PartNet
from csvi.model.two_stream import TwoStream
from csvi.runs.settings import as_method
from csvi.train.cost import random_batch, training

TOLERANCE = 1e-4
PAPERS = (*TABLE_3, "coseg+")
"""The paper's methods, whose backbone is the same; benchmarks/methods.py has all."""
TARGETS = dict.fromkeys(PAPERS, ("baseline", 1.3)) | {"baseline": ("bare", 1.10)}
"""Method → than which other contestant, and how many times as long, it may take."""
TARGET_AS_USUAL = 2.0
"""How many times as long as csvi's Baseline the usual way should take on a CPU, at least."""

Step = Callable[[], object]


class AsUsual(nn.Module):
    """The Baseline with layers of its own for each part, in a loop.

    Args:
        net: whose weights it starts with.
    """

    def __init__(self, net: PartNet):
        super().__init__()
        self.visible, self.infrared, self.shared = net.backbone.visible, net.backbone.infrared, net.backbone.shared
        parts, channels, dim = net.head.embed.weight.shape
        identities = net.head.classify.weight.shape[2]
        self.embed = nn.ModuleList(nn.Linear(channels, dim) for _ in range(parts))
        self.norm = nn.ModuleList(nn.BatchNorm1d(dim) for _ in range(parts))
        self.classify = nn.ModuleList(nn.Linear(dim, identities) for _ in range(parts))
        for layers, source in ((self.embed, net.head.embed), (self.classify, net.head.classify)):
            for layer, weight, bias in zip(layers, source.weight, source.bias, strict=True):
                layer.weight.data, layer.bias.data = weight.data.T.clone(), bias.data.clone()

    def forward(self, visible: Tensor, infrared: Tensor) -> list[tuple[Tensor, Tensor]]:
        features = self.shared(torch.cat((self.visible(visible), self.infrared(infrared)), 0))
        height = features.size(2) // len(self.embed)
        outputs = []
        for p, (embed, norm, classify) in enumerate(zip(self.embed, self.norm, self.classify, strict=True)):
            strip = features[:, :, p * height : (p + 1) * height, :]
            part = norm(embed(F.adaptive_avg_pool2d(strip, 1).flatten(1)))
            outputs.append((part, classify(part)))
        return outputs


def losses_as_usual(outputs: list[tuple[Tensor, Tensor]], identity: Tensor, settings: BaselineSettings) -> Tensor:
    """Identity and hetero-center loss of csvi's default settings, by part and by identity."""
    half = len(identity) // 2
    total = torch.zeros((), device=identity.device)
    for part, scores in outputs:
        for images in (slice(half), slice(half, None)):
            total = total + settings.identity_weight * F.cross_entropy(scores[images], identity[images])
        part = F.normalize(part, dim=1)
        for label in identity.unique():
            center = [part[images][identity[images] == label].mean(0) for images in (slice(half), slice(half, None))]
            total = total + settings.center_weight * (center[0] - center[1]).pow(2).sum()
    return total


def step_as_usual(config: Config, identities: int) -> tuple[AsUsual, Step]:
    """The network, and a step of it."""
    torch.manual_seed(0)
    config = with_method(config, "baseline")
    device = make_fabric(config.precision).device
    network = AsUsual(build_method(config, identities).net).to(device)
    optimizer = torch.optim.SGD(network.parameters(), config.train.lr, 0.9, weight_decay=config.train.weight_decay)
    batch = random_batch(config, identities)
    image = batch.image.contiguous()
    half = len(image) // 2

    def step() -> float:
        outputs = network(image[:half].to(device), image[half:].to(device))
        loss = losses_as_usual(outputs, batch.identity.to(device), config.method)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return network, step


class Bare(nn.Module):
    """The two-stream backbone and one linear head; visible images first, then as many infrared ones."""

    def __init__(self, backbone: str, identities: int):
        super().__init__()
        self.backbone = TwoStream(backbone)
        self.head = nn.Linear(self.backbone.channels, identities)

    def forward(self, image: Tensor) -> Tensor:
        visible, infrared = image.chunk(2)
        features = torch.cat([self.backbone.visible(visible), self.backbone.infrared(infrared)])
        return self.head(self.backbone.shared(features).mean((2, 3)))


def step_of_bare(config: Config, identities: int) -> Step:
    """Forward, backward and SGD, nothing else."""
    torch.manual_seed(0)
    fabric = make_fabric(config.precision)
    network = Bare(config.method.backbone, identities).to(memory_format=torch.channels_last)
    settings = {"momentum": 0.9, "weight_decay": config.train.weight_decay, "fused": True}
    wrapped, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), config.train.lr, **settings))
    batch = loaded_batch(config, identities)

    def step() -> None:
        moved = prepare(batch, fabric.device)
        loss = F.cross_entropy(wrapped(moved.image), moved.identity)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()

    return step


def step_of(config: Config, identities: int) -> Step:
    """A training step of csvi on a batch that is there already."""
    method, step = training(config, identities)
    batch = loaded_batch(config, identities, method.views(config.data))
    return lambda: step(batch)


def loaded_batch(config: Config, identities: int, views: Views | None = None) -> Batch:
    """Noise as a loader hands over images: in bytes and, beside a GPU, in memory that is pinned."""
    batch = random_batch(config, identities, views)
    batch = batch._replace(image=(64 * batch.image + 128).clamp(0, 255).byte(), mask=(255 * batch.mask).byte())
    if torch.cuda.is_available():
        return Batch(*(None if rows is None else rows.pin_memory() for rows in batch[:-1]))
    return batch


def with_method(config: Config, name: str, compiled: bool = False) -> Config:
    """The settings with another method, and compiled or not."""
    train = TrainConfig(compile=compiled)
    return Config(as_method(config.method, name), data=config.data, train=train, precision=config.precision)


def same_baseline(config: Config, identities: int) -> bool:
    """Whether the usual way computes the loss of csvi's Baseline, both in float32 from the same weights."""
    torch.manual_seed(0)
    config = with_method(config, "baseline")
    method, batch = build_method(config, identities), random_batch(config, identities)
    with torch.no_grad():
        ours = sum(method(batch, step=0).values())
        usual = losses_as_usual(AsUsual(method.net)(*batch.image.chunk(2)), batch.identity, config.method)
    return bool(abs(usual / ours - 1) <= TOLERANCE)


def optimizers(config: Config, identities: int, turns: int) -> Seconds:
    """Seconds that the optimiser takes of a step, fused as csvi has it, and as it is by default."""
    torch.manual_seed(0)
    method = build_method(with_method(config, "baseline"), identities).to(memory_format=torch.channels_last)
    method.to(make_fabric(config.precision).device)
    for parameter in method.parameters():
        parameter.grad = torch.randn_like(parameter)
    settings = {"lr": 1e-6, "momentum": 0.9, "weight_decay": config.train.weight_decay}
    fused, default = (torch.optim.SGD(method.parameters(), **settings, fused=fused) for fused in (True, None))
    return take_turns({"fused": fused.step, "default": default.step}, turns)


def compare(config: Config, identities: int, options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints.

    Raises:
        BenchmarkError: the two Baselines are not the same.
    """
    images = 2 * config.data.identities * config.data.images
    console.print(
        f"{config.method.backbone}, {images} images of {config.data.height}×{config.data.width}, {identities} "
        f"identities, {options.steps} steps each; {machine()}"
    )
    if not same_baseline(config, identities):
        raise BenchmarkError(f"losses of the two Baselines differ by more than {TOLERANCE:g}")
    steps: dict[str, Step] = {"bare": step_of_bare(config, identities)}
    for name in options.methods:
        steps[name] = step_of(with_method(config, name), identities)
    if not options.no_usual:
        steps["as usual"] = step_as_usual(config, identities)[1]
    operations = {name: count_operations(step) for name, step in steps.items()}
    first = {}
    if options.compile:
        for name in options.methods:
            compiled = f"{name}, compiled"
            steps[compiled] = step_of(with_method(config, name, compiled=True), identities)
            first[compiled] = time_call(steps[compiled])
            operations[compiled] = operations[name]
    seconds = take_turns(steps, options.steps, warm_up=0)  # counting was

    findings = {name: comparison(name, seconds) for name in seconds}
    table = Table("", "ms a step", "images/s", "TFLOP a step", "TFLOP/s", "MFU", "compared", "first step")
    for name, all_taken in seconds.items():
        taken = statistics.median(all_taken)
        speed = operations[name] / taken / 1e12
        finding = findings[name]
        table.add_row(
            name, f"{1e3 * taken:.0f}", f"{images / taken:.0f}", f"{operations[name] / 1e12:.2f}", f"{speed:.2f}",
            f"{speed / options.peak:.0%}" if options.peak else "", finding.found if finding else "",
            f"{first[name]:.0f} s" if name in first else "",
        )  # fmt: skip
    console.print(table)
    of = optimizers(config, identities, options.steps)
    step = statistics.median(seconds["baseline" if "baseline" in seconds else "bare"])
    for name, all_taken in of.items():
        taken = statistics.median(all_taken)
        console.print(f"SGD {name}: {1e3 * taken:.0f} ms, {taken / step:.1%} of a step of that length")
    if options.profile:
        print_kernels(options.methods[-1], steps[options.methods[-1]], console)
    return [finding for finding in findings.values() if finding and finding.target]


def comparison(name: str, seconds: Seconds) -> Finding | None:
    """How a contestant's step compares to another's, and to what it should."""
    if name == "as usual" and "baseline" in seconds:
        times = ratio(seconds, name, "baseline")
        target = "" if torch.cuda.is_available() else f"≥ {TARGET_AS_USUAL:.2f} ×"
        return Finding("a step as usual", f"{times:.2f} × baseline", target, times >= TARGET_AS_USUAL)
    if name.endswith(", compiled"):
        eager = name.removesuffix(", compiled")
        return Finding(f"a step of {name}", f"{ratio(seconds, name, eager):.2f} × {eager}", "", True)
    if name in TARGETS and TARGETS[name][0] in seconds:
        other, most = TARGETS[name]
        times = ratio(seconds, name, other)
        return Finding(f"a step of {name}", f"{times:.2f} × {other}", f"≤ {most:.2f} ×", times <= most)
    return None


def count_operations(step: Step) -> int:
    """Floating-point operations of the convolutions and matrix products of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def profiled(call: Callable[[], object]) -> tuple[EventList, float]:
    """What a call spends its time on, and its seconds with the profiler on."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        wall = time_call(call)
    return profiler.key_averages(), wall


def print_kernels(name: str, step: Step, console: Console, steps: int = 3) -> None:
    """What a step spends its time on."""
    averages, _ = profiled(lambda: [time_call(step) for _ in range(steps)])
    order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    console.print(f"{steps} steps of {name}, by {order}:")
    print(averages.table(sort_by=order, row_limit=20, max_name_column_width=80))


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    add_sizes(parser)
    parser.add_argument("--steps", type=positive, default=10, help="of each contestant")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(PAPERS))
    parser.add_argument("--no-usual", action="store_true", help="leave out the slowest contestant")
    parser.add_argument("--compile", action="store_true", help="the methods with --train.compile as well")
    parser.add_argument("--profile", action="store_true", help="what the last of the methods spends its time on")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device in this precision, for MFU")
    parser.add_argument("--quick", action="store_true", help="a small network and few steps, to see that it runs")
    return parser


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints what is asked for."""
    if options.quick:
        make_small(options)
        options.steps = 2
    config = config_of(options)
    cells = 16 * config.method.parts
    if config.data.height % cells:
        raise BenchmarkError(f"the usual way cuts features into equal parts: give a height that {cells} divides")
    return compare(config, options.classes, options, console)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Options that say what is trained."""
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--height", type=positive, default=288)
    parser.add_argument("--width", type=positive, default=144)
    parser.add_argument("--identities", type=positive, default=8, help="a batch")
    parser.add_argument("--images", type=positive, default=4, help="of each identity and modality in a batch")
    parser.add_argument("--classes", type=positive, default=395, help="identities to tell apart")
    parser.add_argument("--widths", type=positive, nargs=2, help="channels of the decoder's two blocks")
    parser.add_argument("--precision", default="auto")


def make_small(options: argparse.Namespace) -> None:
    """For --quick."""
    options.backbone, options.height, options.width = "resnet18", 96, 48
    options.identities, options.images, options.classes = 2, 2, 10


def config_of(options: argparse.Namespace) -> Config:
    """Settings of csvi for the options of `add_sizes`."""
    data = DataConfig(
        height=options.height, width=options.width, identities=options.identities, images=options.images, workers=0
    )
    widths = options.widths and tuple(options.widths)
    return Config(
        CoSeg.Settings(backbone=options.backbone, weights="none", widths=widths), data=data, precision=options.precision
    )


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
