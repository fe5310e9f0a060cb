"""The look of figures: style, pictures and text at places in inches, and groups of bars."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

STYLE: Any = {"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False, "font.size": 10}


def place(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Add bare axes at a place in inches from the upper left corner of the figure."""
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes(
        (x / total_width, 1 - (y + height) / total_height, width / total_width, height / total_height)
    )
    axes.axis("off")
    return axes


def write(figure: Figure, x: float, y: float, text: str, fontsize: float = 7.5, **style: Any) -> None:
    """Write text as it is (`$` too) at a place in inches from the upper left corner of the figure."""
    total_width, total_height = figure.get_size_inches()
    figure.text(x / total_width, 1 - y / total_height, text, fontsize=fontsize, parse_math=False, **style)


def show(axes: Axes, pixels: np.ndarray) -> None:
    """Show an image (H, W, 3), or a mask or a probability (H, W) in [0, 1] as grey."""
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, aspect="auto")


def outline(axes: Axes, probability: np.ndarray) -> None:
    """Outline a predicted mask at a probability of 0.5."""
    if probability.min() < 0.5 < probability.max():
        axes.contour(probability, levels=[0.5], colors="#e8590c", linewidths=0.9)


def grouped_bars(
    axes: Axes, names: Sequence[str], bars: Sequence[tuple[Sequence[float], dict[str, Any]]], width: float, floor: float
) -> list[BarContainer]:
    """Draw bars side by side, a group for each name, in the middle of which the name stands.

    Args:
        names: of the groups.
        bars: of each kind of bar, its value in every group and its style.
        width: of a bar and the gap beside it; groups are 1 apart.
        floor: the value that bars begin at.
    """
    axes.set_xticks(range(len(names)), names)
    axes.tick_params("x", length=0)
    axes.set_xlim(-0.5, len(names) - 0.5)
    drawn = []
    for number, (values, style) in enumerate(bars):
        at = np.arange(len(names)) + (number - (len(bars) - 1) / 2) * width
        drawn.append(axes.bar(at, np.maximum(values, floor) - floor, 0.9 * width, floor, **style))
    return drawn


def in_lines(run: str, width: int) -> str:
    """Break the name of a run into lines of so many characters; a long one breaks after a _."""
    return textwrap.fill(run.replace("_", "_ "), width).replace("_ ", "_")
