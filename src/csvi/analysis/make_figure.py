"""The paper's figures by name: opened runs in; a picture, numbers and a table out."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from csvi.analysis import cosegmentation, gradients, heatmaps, leak, tsne
from csvi.analysis.plain_table import plain_console
from csvi.analysis.tables import SYNTHETIC
from csvi.errors import CsviError
from csvi.runs import Run
from csvi.writing import replacing


@dataclass(frozen=True)
class Drawn:
    """A figure of runs."""

    picture: Figure
    numbers: Any
    """Its measurements: a dataclass, or a list of them."""
    table: Table


@dataclass(frozen=True)
class Kind:
    """A figure that can be asked for."""

    draw: Callable[[Sequence[Run], int], Drawn]
    caption: str
    """Caption below the figure."""
    several: bool = True
    """Whether it can show several runs side by side."""


def _cosegmentation(runs: Sequence[Run], seed: int) -> Drawn:
    results = [cosegmentation.cosegmentation(runs[0], seed=seed)]
    picture = cosegmentation.cosegmentation_figure(runs[0], seed)
    return Drawn(picture, results, cosegmentation.cosegmentation_table(results))


def _tsne(runs: Sequence[Run], seed: int) -> Drawn:
    planes = tsne.tsne(runs, seed=seed)
    return Drawn(tsne.tsne_figure(planes), planes, tsne.tsne_table(planes))


def _heatmaps(runs: Sequence[Run], seed: int) -> Drawn:
    shares = heatmaps.person_shares(runs, seed=seed)
    return Drawn(heatmaps.heatmaps_figure(runs, shares, seed), shares, heatmaps.heatmaps_table(shares))


def _gradients(runs: Sequence[Run], seed: int) -> Drawn:
    results = [gradients.gradients(run, seed=seed) for run in runs]
    return Drawn(gradients.gradients_figure(results), results, gradients.gradients_table(results))


def _leak(runs: Sequence[Run], seed: int) -> Drawn:
    results = leak.leak(runs, seed)
    return Drawn(leak.leak_figure(results), results, leak.leak_table(results))


FIGURES = {
    "cosegmentation": Kind(
        _cosegmentation,
        "Masks predicted from a set of images of one person, and of two people mixed (Figure 4 of the paper). "
        "The pair is drawn at random.",
        several=False,
    ),
    "tsne": Kind(
        _tsne,
        "Embeddings of test identities and the centers of their modalities, by t-SNE (Figure 5). Distances are those "
        "of the embeddings, not of the plane.",
    ),
    "heatmaps": Kind(
        _heatmaps,
        "Where the last block's features are large, and the masks (Figure 6). Below, the share of their energy inside "
        "the person; in brackets inside the person of another image, which is what a map that looks at no image gets.",
    ),
    "gradients": Kind(
        _gradients,
        "Gradients that reach the features, by modality (Eq. 20-24). Hatched: of the segmentation loss of the other "
        "modality's images, which only co-segmentation has.",
    ),
    "leak": Kind(
        _leak,
        "Whom the extra part module names when the selected features come from its own, another's or the mean weights "
        "w: the red bar is the share that it reads from w instead of from the image.",
    ),
}
"""Name on the command line → how it is made."""


def make_figure(name: str, runs: Sequence[Run], out: Path | None = None, seed: int = 0) -> list[Path]:
    """Draw a figure, write OUT/NAME.png, .svg and, with its numbers, .json, and print its table.

    Args:
        name: a key of `FIGURES`.
        runs: opened runs.
        out: folder to write; by default figures in the folder of the first run.
        seed: of every random draw; nothing is chosen by its result.

    Returns:
        The files.

    Raises:
        CsviError: a run has nothing for this figure; or a seed that is negative or of more than 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise CsviError(f"seed is {seed}: it must be from 0 to {2**32 - 1}")
    kind = FIGURES[name]
    if len(runs) > 1 and not kind.several:
        raise CsviError(f"{name} shows one run, and {len(runs)} were given: choose one")
    drawn = kind.draw(runs, seed)
    out = out or Path(runs[0].path) / "figures"
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{name}.{suffix}" for suffix in ("png", "svg", "json")]
    for file in files[:2]:
        with replacing(file) as partial:
            drawn.picture.savefig(partial, format=file.suffix[1:], dpi=150)
    numbers = drawn.numbers if isinstance(drawn.numbers, list) else [drawn.numbers]
    with replacing(files[2]) as partial:
        partial.write_text(json.dumps([dataclasses.asdict(number) for number in numbers], indent=1) + "\n")
    console = plain_console()
    if any(run.benchmark.synthetic for run in runs):
        console.print(SYNTHETIC)
    console.print(drawn.table)
    return files
