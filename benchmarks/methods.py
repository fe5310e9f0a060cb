"""What every method costs, on every trunk: a training step, embedding, parameters and memory.

    python benchmarks/methods.py [--methods agw coseg] [--backbones resnet50 mobilenet_v2] [--height 288 --width 144]

Noise takes the place of images, as nothing here is about loading. A batch has N identities with K images in each
modality, and as many rows as the method's views make of them. Every training is in a process of its own, so that memory
is its alone; embedding is that of `csvi evaluate`, with BatchNorm folded into the convolutions.
"""

import argparse
import statistics
import sys
import time

import torch
from common import Finding, parser_of, positive, run
from rich.console import Console
from rich.table import Table

from csvi.config import Config, DataConfig
from csvi.data.loader import EVALUATION_BATCH
from csvi.errors import CsviError
from csvi.fabric import make_fabric
from csvi.methods import METHODS, build_method, find_method
from csvi.model.folding import folded
from csvi.model.two_stream import Route
from csvi.plain_table import plain_table
from csvi.runs.settings import as_method
from csvi.train.cost import training_cost

TRANSFORMERS = {"pmt": "vit_base"}
"""Method → trunk of its own, which it has beside those that are asked for."""


def config_of(method: str, backbone: str, data: DataConfig, precision: str) -> Config:
    """The settings of a method with random weights on a trunk."""
    config = Config(find_method(method).Settings(), data=data, precision=precision)  # type: ignore[arg-type]
    config.method = as_method(config.method, method)
    config.method.backbone, config.method.weights = backbone, "none"  # type: ignore[attr-defined]
    return config


def images_a_second(config: Config, identities: int, batches: int = 3) -> float:
    """How many images of one modality the network embeds in a second: the median over some batches."""
    fabric = make_fabric(config.precision)
    net = folded(build_method(config, identities).net)
    net = net.to(fabric.device).to(memory_format=torch.channels_last)
    image = torch.randn(EVALUATION_BATCH, 3, config.data.height, config.data.width, device=fabric.device)
    image, route = image.contiguous(memory_format=torch.channels_last), Route(EVALUATION_BATCH, 0, None)
    seconds = []
    for _ in range(1 + batches):
        start = time.perf_counter()
        with torch.inference_mode(), fabric.autocast():
            net(image, route).cpu()
        seconds.append(time.perf_counter() - start)
    return EVALUATION_BATCH / statistics.median(seconds[1:])


def measure(options: argparse.Namespace, console: Console) -> list[Finding]:
    """Measures and prints; there are no targets."""
    data = data_of(options)
    names = "method", "trunk", "training (M)", "at test (M)", "s/step", "images/s embedded", "memory (GiB)", "embedding"
    table: Table = plain_table(*names)
    for method in options.methods:
        own = [TRANSFORMERS[method]] if method in TRANSFORMERS else []
        for backbone in [*options.backbones, *own]:
            config = config_of(method, backbone, data, options.precision)
            cells = [method, backbone]
            try:
                cost = training_cost(config, options.classes, options.steps)
                speed = images_a_second(config, options.classes)
                with torch.no_grad():
                    probe = torch.zeros(2, 3, data.height, data.width)
                    length = build_method(config, options.classes).net.eval()(probe, 0).shape[1]
            except CsviError as error:
                table.add_row(*cells, str(error))
                continue
            millions = (f"{count / 1e6:.2f}" for count in (cost.parameters_training, cost.parameters_testing))
            table.add_row(
                *cells,
                *millions,
                f"{cost.seconds_a_step:.3f}",
                f"{speed:.0f}",
                f"{cost.bytes / 2**30:.2f}",
                str(length),
            )
    console.print(table)
    return []


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--backbones", nargs="+", default=["resnet50", "resnet18", "mobilenet_v2"])
    add_sizes(parser)
    parser.add_argument("--steps", type=positive, default=5, help="measured after a warm-up")
    parser.add_argument("--precision", default="auto")
    return parser


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Options that say what a batch is, see `data_of`, and `classes`."""
    parser.add_argument("--height", type=positive, default=144, help="pixels; 288 in most publications")
    parser.add_argument("--width", type=positive, default=72, help="pixels; 144 in most publications")
    parser.add_argument("--identities", type=positive, default=8, help="N, identities a batch")
    parser.add_argument("--images", type=positive, default=4, help="K, images of each identity and modality")
    parser.add_argument("--classes", type=positive, default=395, help="identities to train on")


def data_of(options: argparse.Namespace) -> DataConfig:
    """The settings of the data for the options of `add_sizes`."""
    return DataConfig(height=options.height, width=options.width, identities=options.identities, images=options.images)


if __name__ == "__main__":
    sys.exit(run(measure, make_parser()))
