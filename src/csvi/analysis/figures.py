"""Figures of a run, as SVG text for the report."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

plt.rcParams.update({"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False, "font.size": 10})


def read_metrics(run: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one figure of RUN/metrics.jsonl, such as `train/loss`."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]


def loss_curves(run: Path, smoothing: int = 15) -> str:
    """The weighted loss terms by step: each as it was (pale) and as a running mean."""
    first = json.loads((run / "metrics.jsonl").read_text().split("\n", 1)[0])
    names = [name for name in first if name.startswith("train/") and name.split("/", 1)[1] not in _NOT_A_LOSS]
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for number, name in enumerate(names):
        steps, values = read_metrics(run, name)
        axes.plot(steps, values, color=f"C{number}", alpha=0.25, linewidth=0.8)
        axes.plot(steps, _running_mean(values, smoothing), color=f"C{number}", label=name.removeprefix("train/"))
    axes.set(xlabel="step", ylabel="weighted loss", yscale="log")
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def validation_curves(run: Path) -> str | None:
    """R1, mAP and mINP on the val identities by step; None where the run never validated."""
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for name in ("R1", "mAP", "mINP"):
        steps, values = read_metrics(run, f"val/{name}")
        axes.plot(steps, [100 * value for value in values], marker="o", label=name)
    if not steps:
        plt.close(figure)
        return None
    axes.set(xlabel="step", ylabel="% (val identities)", ylim=(0, 100), xlim=(0, None))
    axes.legend(frameon=False)
    return _svg(figure)


_NOT_A_LOSS = {"loss", "lr", "images_per_second"}


def _running_mean(values: Sequence[float], length: int) -> list[float]:
    return [sum(part) / len(part) for i in range(len(values)) for part in [values[max(0, i - length + 1) : i + 1]]]


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue().partition("<svg")[1] + buffer.getvalue().partition("<svg")[2]
