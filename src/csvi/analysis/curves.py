"""Loss and validation curves of a run, as SVG text for the report."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from csvi.analysis.canvas import STYLE
from csvi.runs.metrics_log import read_lines, read_metrics

NOT_A_TERM = {"train/loss", "train/lr", "train/images_per_second", "train/skipped"}
SMOOTHING = 15
"""Steps of the running mean."""


def loss_curves(run: Path) -> str | None:
    """Draw the weighted loss terms by step, each as it was (pale) and as a running mean; None without metrics."""
    lines = read_lines(run)
    names = dict.fromkeys(name for _, metrics in lines for name in metrics if name.startswith("train/"))
    curves = {name: [(step, metrics[name]) for step, metrics in lines if name in metrics] for name in names}

    def draw(axes: Axes) -> None:
        for number, name in enumerate(name for name in names if name not in NOT_A_TERM):
            steps, values = zip(*curves[name], strict=True)
            axes.plot(steps, values, color=f"C{number}", alpha=0.25, linewidth=0.8)
            axes.plot(steps, _running_mean(values), color=f"C{number}", label=name.removeprefix("train/"))
        axes.set(xlabel="step", ylabel="weighted loss", yscale="log")
        axes.legend(frameon=False, fontsize=9)

    return _svg(draw) if names.keys() - NOT_A_TERM else None


def validation_curves(run: Path) -> str | None:
    """Draw R1, mAP and mINP on the val identities by step; None for a run that never validated."""
    curves = {name: read_metrics(run, f"val/{name}") for name in ("R1", "mAP", "mINP")}

    def draw(axes: Axes) -> None:
        for name, (steps, values) in curves.items():
            axes.plot(steps, [100 * value for value in values], marker="o", label=name)
        axes.set(xlabel="step", ylabel="% (val identities)", ylim=(0, 100), xlim=(0, None))
        axes.legend(frameon=False)

    return _svg(draw) if curves["R1"][0] else None


def _running_mean(values: Sequence[float]) -> list[float]:
    return [fmean(values[max(0, i - SMOOTHING + 1) : i + 1]) for i in range(len(values))]


def _svg(draw: Callable[[Axes], None]) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]  # without the XML declaration
