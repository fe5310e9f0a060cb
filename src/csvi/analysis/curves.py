"""Loss and validation curves of a run, as SVG text for the report."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from csvi.analysis.canvas import STYLE
from csvi.runs.metrics_log import read_lines, read_metrics


def loss_curves(run: Path, smoothing: int = 15) -> str | None:
    """Draw the weighted loss terms by step, each as it was (pale) and as a running mean; None without metrics."""
    _, first = next(iter(read_lines(run)), (0, {}))
    names = [name for name in first if name.startswith("train/") and name not in _NOT_A_TERM]
    if not names:
        return None

    def draw(axes: Axes) -> None:
        for number, name in enumerate(names):
            steps, values = read_metrics(run, name)
            axes.plot(steps, values, color=f"C{number}", alpha=0.25, linewidth=0.8)
            axes.plot(steps, _running_mean(values, smoothing), color=f"C{number}", label=name.removeprefix("train/"))
        axes.set(xlabel="step", ylabel="weighted loss", yscale="log")
        axes.legend(frameon=False, fontsize=9)

    return _svg(draw)


def validation_curves(run: Path) -> str | None:
    """Draw R1, mAP and mINP on the val identities by step; None for a run that never validated."""
    curves = {name: read_metrics(run, f"val/{name}") for name in ("R1", "mAP", "mINP")}
    if not curves["R1"][0]:
        return None

    def draw(axes: Axes) -> None:
        for name, (steps, values) in curves.items():
            axes.plot(steps, [100 * value for value in values], marker="o", label=name)
        axes.set(xlabel="step", ylabel="% (val identities)", ylim=(0, 100), xlim=(0, None))
        axes.legend(frameon=False)

    return _svg(draw)


_NOT_A_TERM = {"train/loss", "train/lr", "train/images_per_second", "train/skipped"}


def _running_mean(values: Sequence[float], length: int) -> list[float]:
    return [sum(part) / len(part) for i in range(len(values)) for part in [values[max(0, i - length + 1) : i + 1]]]


def _svg(draw: Callable[[Axes], None]) -> str:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]  # without the XML declaration
