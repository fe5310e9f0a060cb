"""All that is to be measured on one GPU, within ten minutes: one table, and OUT/gpu.json.

    PYTHON=python3 OUT=gpu benchmarks/gpu.sh [--seconds 560] [--peak TFLOPS] [--only training tests] [--dry]

Each part runs in a process of its own, for so long at most; one that fails or runs over is named in the table, with
what it had found, and the rest goes on. What compiling takes is measured last, in the time that is left.
With --dry all of it is small, to see on any machine that it runs; nothing follows from its numbers.
"""

import argparse
import gc
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from common import machine, make_console, parser_of, positive, ratio, take_turns, time_call
from embedding import bare, caches, write_images
from rich.table import Table
from torch.autograd import DeviceType
from training import (
    PAPERS,
    Step,
    add_sizes,
    config_of,
    count_operations,
    make_small,
    profiled,
    step_as_usual,
    step_of,
    step_of_bare,
    with_method,
)  # fmt: skip

from csvi.config import shipped_config
from csvi.fabric import make_fabric
from csvi.machine import usable_cores
from csvi.methods import build_method

PEAKS = {"H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Part of a GPU's name → its dense bfloat16 TFLOP/s, after the data sheets; the first that fits."""
EVALUATING = 45
"""Seconds that the study keeps for evaluating what it has trained."""
TURNING = 0.7
"""Share of a part's time after which it begins no other turn."""
CHECKOUT = Path(__file__).parents[1]


class Row(NamedTuple):
    """What a part has found."""

    what: str
    value: float | None
    unit: str
    note: str = ""
    goal: str = ""
    met: bool | None = None


Rows = Iterator[Row]


def training(options: argparse.Namespace) -> Rows:
    """Steps of the rows of Table 3 and of coseg+, of the bare network and of a Baseline as usual, by turns."""
    config, classes = config_of(options), options.classes
    steps = {"bare": step_of_bare(config, classes)}
    steps |= {name: step_of(with_method(config, name), classes) for name in PAPERS}
    steps["as usual"] = step_as_usual(config, classes)[1]
    operations = {name: count_operations(step) for name, step in steps.items()}
    rounds = {name: repeated(step, options.steps) for name, step in steps.items()}
    seconds = take_turns(rounds, options.turns, 1, options.until)
    images = options.steps * 2 * options.identities * options.images
    for name, taken in seconds.items():
        median = statistics.median(taken)
        speed = options.steps * operations[name] / median / 1e12
        mfu = f", {speed / options.peak:.0%} MFU" if options.peak and name != "as usual" else ""  # in float32
        note = f"{1e3 * median / options.steps:.1f} ms, {operations[name] / 1e12:.2f} TFLOP a step{mfu}"
        yield Row(f"training, {name}", images / median, "images/s", note)
    for name in ("coseg", "coseg+"):
        times = ratio(seconds, name, "baseline")
        yield Row(f"a step of {name}", times, "× baseline", goal="≤ 1.3", met=times <= 1.3)
    times = ratio(seconds, "as usual", "baseline")
    yield Row("a step as usual", times, "× baseline", goal="≥ 5", met=times >= 5)


def embedding(options: argparse.Namespace) -> Rows:
    """JPEGs from a cold and from a warm cache, against the bare network on numbers, compiled and not."""
    config = with_method(config_of(options), "baseline")
    config.data.workers = options.workers
    fabric = make_fabric(config.precision)
    net = build_method(config, options.classes).net.to(fabric.device).to(memory_format=torch.channels_last)
    count = options.pictures
    with tempfile.TemporaryDirectory() as folder:
        root, config.data.cache = Path(folder, "images"), str(Path(folder, "cache"))
        root.mkdir()
        records = write_images(root, count)
        contestants = {
            "bare": bare(config, fabric, count),
            "bare, compiled": bare(config, fabric, count, compiled=True),
        }
        from_caches, _ = caches(net, root, records, config.data, fabric)
        seconds = take_turns(contestants | from_caches, options.turns, 1, options.until)
    for name, taken in seconds.items():
        yield Row(f"embedding, {name}", count / statistics.median(taken), "images/s")
    for name in ("cold cache", "warm cache"):
        share = ratio(seconds, "bare, compiled", name)
        yield Row(f"embedding, {name}", share, "× bare, compiled", goal="≥ 0.6", met=share >= 0.6)


def memory(options: argparse.Namespace) -> Rows:
    """Most memory of a step against the batch."""
    for identities in options.batches:
        config = config_of(argparse.Namespace(**vars(options) | {"identities": identities}))
        for name in ("baseline", "coseg"):
            for changed in [False, True] if name == "coseg" else [False]:
                of = with_method(config, name)
                of.train.checkpoint_activations = changed
                gc.collect()  # the network before, whose blocks know themselves
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                note = ["checkpoint_activations"] * changed
                try:
                    repeated(step_of(of, options.classes), 2)()
                except torch.OutOfMemoryError:
                    note.append("more than there is")
                most = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
                yield Row(f"memory, {name}, {2 * identities * options.images} images", most, "GiB", ", ".join(note))


def kernels(options: argparse.Namespace) -> Rows:
    """What a step of coseg spends the device's time on."""
    step = step_of(with_method(config_of(options), "coseg"), options.classes)
    steps = min(3, options.steps)
    repeated(step, 3)()
    on_gpu = torch.cuda.is_available()
    averages, wall = profiled(repeated(step, steps))
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [event for event in averages if event.device_type == kind and not event.is_user_annotation]
    events.sort(key=lambda event: getattr(event, attribute), reverse=True)
    total = sum(getattr(event, attribute) for event in events)
    yield Row("kernels, share of the time", total / 1e6 / wall, "", "with the profiler on")
    for event in events[:12]:
        value = getattr(event, attribute)
        yield Row(f"kernel {event.key[:70]}", value / 1e3 / steps, "ms a step", f"{value / total:.0%}")


def compiling(options: argparse.Namespace) -> Rows:
    """torch.compile on and off."""
    config = config_of(options)
    for name in ("coseg", "baseline"):
        steps = {of: step_of(with_method(config, name, of == "on"), options.classes) for of in ("off", "on")}
        yield Row(f"compile, {name}, first step", time_call(steps["on"]), "s")
        rounds = {of: repeated(step, options.steps) for of, step in steps.items()}
        seconds = take_turns(rounds, options.turns, 1, options.until)
        yield Row(f"compile, {name}, on", ratio(seconds, "on", "off"), "× off")


def tests(options: argparse.Namespace) -> Rows:
    """The tests that want a GPU."""
    asked = "pytest tests/gpu -m gpu -v --durations=5 -p no:cacheprovider"
    command = [sys.executable, "-m", *asked.split()]
    last = ""
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pytest:
        for line in pytest.stdout or []:
            print(line, end="", flush=True)  # what a part that is ended has said stays
            last = line.strip() or last
    passed, failed = (int(found[1]) if (found := re.search(rf"(\d+) {of}", last)) else 0 for of in ("passed", "failed"))
    right = failed == 0 and (passed > 0 or not torch.cuda.is_available())
    yield Row("tests marked gpu", passed, "passed", last, "all", pytest.returncode == 0 and right)


def study(options: argparse.Namespace) -> Rows:
    """Training and evaluation on the synthetic benchmark, at this size and from random weights, in the time it has."""
    until = time.monotonic() + options.limit - EVALUATING
    sizes = {"height": options.height, "width": options.width}
    with tempfile.TemporaryDirectory() as folder:
        root, run = Path(folder, "study"), Path(folder, "run")
        start = time.monotonic()
        csvi("synth", root, "--preset", options.preset, *(f"--{name}={value}" for name, value in sizes.items()))
        images = sum(1 for _ in root.glob("cam*/*/*.jpg"))
        yield Row("rendering, with masks", images / (time.monotonic() - start), "images/s")
        data = {"root": root, "cache": Path(folder, "cache"), "workers": options.workers, **sizes}
        data |= {"identities": options.identities, "images": options.images}
        method = {"backbone": options.backbone, "weights": "none", "widths": "null"}
        method |= {"segmentation_weight": 60, "center_ramp": 300}
        train = {"epochs": options.epochs, "warmup": 100, "lr": 0.001, "validate_every": 10}
        settings = {"data": data, "method": method, "train": train}
        named = [f"--{section}.{name}={value}" for section, of in settings.items() for name, value in of.items()]
        start = time.monotonic()
        limit = f"--max_time={max(1, int(until - start))}s"
        whole = csvi("train", "--config", shipped_config("study"), "--method", "coseg+", *named, "--run", run, limit)
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        steps = max((line["step"] for line in lines), default=0)
        note = f"{steps} steps, {options.epochs} epochs{'' if whole else ' were not reached'}"
        yield Row("study, time of training", time.monotonic() - start, "s", note)
        speeds = [line["train/images_per_second"] for line in lines if "train/images_per_second" in line]
        if speeds:
            yield Row("study, training with its loaders", statistics.median(speeds), "images/s")
        start = time.monotonic()
        csvi("evaluate", run)
        (found,) = [json.loads(file.read_text()) for file in run.glob("evaluation.json")]
        for name in ("R1", "mAP"):
            value = found["protocols"][0]["metrics"][name]["mean"]
            yield Row(f"study, {name}", 100 * value, "%", found["protocols"][0]["protocol"])
        for modality, masks in found["masks"].items():
            yield Row(
                f"study, mask IoU, {modality}", masks["iou"], "", f"best constant mask {masks['constant_iou']:.3f}"
            )
        yield Row("study, time of evaluation", time.monotonic() - start, "s")


def csvi(*arguments: object) -> bool:
    """Run a command; returns whether it came to its end, and not to that of the time it was given.

    Raises:
        CalledProcessError: it failed.
    """
    status = subprocess.run([sys.executable, "-m", "csvi", *map(str, arguments)]).returncode
    if status not in (0, 75):
        raise subprocess.CalledProcessError(status, f"csvi {arguments[0]}")
    return status == 0


def repeated(step: Step, times: int) -> Callable[[], None]:
    """So many steps, between which nobody waits for the device."""

    def steps() -> None:
        for _ in range(times):
            step()

    return steps


PARTS: dict[str, tuple[Callable[[argparse.Namespace], Rows], float]] = {
    "tests": (tests, 90),
    "training": (training, 90),
    "kernels": (kernels, 50),
    "memory": (memory, 50),
    "embedding": (embedding, 80),
    "study": (study, 170),
    "compile": (compiling, float("inf")),
}
"""Name → what it does, and for how many seconds at most."""


def run_part(name: str, options: argparse.Namespace) -> int:
    """Do one part in this process; every row is written as it is found."""
    with Path(options.out, f"{name}.jsonl").open("w") as file:
        if name == "training":
            print(machine())
        for row in PARTS[name][0](options):
            file.write(json.dumps(row._asdict()) + "\n")
            file.flush()
    return 0


def run_all(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Do the parts one after the other, each in a process of its own; 1 if one of them failed."""
    out, until = Path(options.out), time.monotonic() + options.seconds
    out.mkdir(parents=True, exist_ok=True)
    console, found = make_console(), {}
    for name in options.only:
        start = time.monotonic()
        limit = min(PARTS[name][1] * (20 if options.dry else 1), until - start)
        (out / f"{name}.jsonl").unlink(missing_ok=True)
        outcome = limited([*arguments, "--part", name, "--limit", str(limit)], out / f"{name}.log", limit)
        file = out / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        found[name] = {"outcome": outcome, "seconds": time.monotonic() - start, "rows": rows}
        told = {"machine": machine(), "arguments": list(arguments), "parts": found}
        (out / "gpu.json").write_text(json.dumps(told, indent=1) + "\n")
        console.print(f"{name}: {outcome}, {found[name]['seconds']:.0f} s, {len(rows)} rows")
    console.print(table_of(found))
    console.print(machine())
    return int(any(part["outcome"] != "done" for part in found.values()))


def limited(arguments: Sequence[str], log: Path, seconds: float) -> str:
    """Run this script with arguments; returns `done`, or what became of it. What it says goes to a file."""
    if seconds < 5:
        return "no time was left"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"ended after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # what it has started as well
                process.wait()
    return "done" if status == 0 else f"failed with status {status}, see {log.name}"


def table_of(parts: dict[str, dict]) -> Table:
    """A line for each row, and one for a part that did not come to its end."""
    table = Table("", "found", "", "", "goal", "")
    for name, part in parts.items():
        for of in part["rows"]:
            row = Row(**of)
            value = "" if row.value is None else f"{row.value:.4g}"
            met = "" if row.met is None else "met" if row.met else "not met"
            table.add_row(row.what, value, row.unit, row.note, row.goal, met)
        if part["outcome"] != "done":
            table.add_row(name, "", "", part["outcome"])
        table.add_section()
    return table


def make_parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    add_sizes(parser)
    parser.add_argument("--out", default="gpu", help="folder for gpu.json and what the parts say")
    parser.add_argument("--seconds", type=float, default=560, help="of all together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device in this precision; by default of its name")
    parser.add_argument("--steps", type=positive, default=10, help="between two looks at the clock")
    parser.add_argument("--turns", type=positive, default=5)
    parser.add_argument("--batches", type=positive, nargs="+", default=[4, 8, 16, 32, 64], help="identities")
    parser.add_argument("--pictures", type=positive, default=2048)
    parser.add_argument("--workers", type=int, default=max(2, int(usable_cores()) - 4), help="loader processes")
    parser.add_argument("--preset", default="study", help="of the synthetic benchmark")
    parser.add_argument("--epochs", type=positive, default=40, help="on the synthetic benchmark")
    parser.add_argument("--dry", action="store_true", help="all of it small, to see that it runs")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=float("inf"), help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every part came to its end, or there is no GPU; goals that are missed are no error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = make_parser().parse_args(arguments)
    if options.dry:
        make_small(options)
        options.steps, options.turns, options.batches, options.pictures = 1, 1, [1, 2], 66
        options.workers, options.preset, options.epochs, options.seconds = 0, "tiny", 1, 1e6
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # compiles nothing
    if options.peak is None and torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        options.peak = next((peak for name, peak in PEAKS.items() if name in device), None)
    options.until = time.monotonic() + TURNING * options.limit
    if options.part:
        return run_part(options.part, options)
    if not (torch.cuda.is_available() or options.dry):
        print("there is no CUDA device, and nothing was measured; --dry runs all of it, small, on a CPU")
        return 0
    return run_all(options, arguments)


if __name__ == "__main__":
    sys.exit(main())
