"""Each of the paper's figures by its name: measures opened runs, draws a picture and prints a table."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from rich.table import Table

from csvi.analysis import cosegmentation, gradients, heatmaps, leak, tsne
from csvi.analysis.tables import SYNTHETIC
from csvi.errors import CsviError
from csvi.model.weights import fingerprint_of
from csvi.plain_table import plain_console
from csvi.runs import Run
from csvi.writing import replacing


class Kind(NamedTuple):
    """A figure that can be asked for."""

    measure: Callable[[Sequence[Run], int], Any]
    """Runs and seed → numbers: a dataclass, or a list of them."""
    draw: Callable[[Sequence[Run], Any, int], Figure]
    """Runs, numbers and seed → picture."""
    table: Callable[[Any], Table]
    """Numbers → table for the terminal."""
    caption: str
    several: bool = True
    """Whether it can show several runs side by side."""


FIGURES = {
    "cosegmentation": Kind(
        lambda runs, seed: [cosegmentation.cosegmentation(runs[0], seed=seed)],
        lambda runs, results, seed: cosegmentation.cosegmentation_figure(runs[0], seed),
        cosegmentation.cosegmentation_table,
        "Masks predicted from a set of images of one person, and of two people mixed (Figure 4 of the paper). "
        "The pair is drawn at random; of masks with a channel for each training identity, from these, each in its own "
        "channel and mixed in that of the first.",
        several=False,
    ),
    "tsne": Kind(
        lambda runs, seed: tsne.tsne(runs, seed=seed),
        lambda runs, planes, seed: tsne.tsne_figure(planes),
        tsne.tsne_table,
        "Embeddings of test identities and the centers of their modalities, by t-SNE (Figure 5). Distances are those "
        "of the embeddings, not of the plane.",
    ),
    "heatmaps": Kind(
        lambda runs, seed: heatmaps.person_shares(runs, seed=seed),
        heatmaps.heatmaps_figure,
        heatmaps.heatmaps_table,
        "Where the last block's features are large, and the masks (Figure 6). Below, the share of their energy inside "
        "the person; in brackets inside the person of another image, which is what a map that looks at no image gets.",
    ),
    "gradients": Kind(
        lambda runs, seed: [gradients.gradients(run, seed=seed) for run in runs],
        lambda runs, results, seed: gradients.gradients_figure(results),
        gradients.gradients_table,
        "Gradients that reach the features, by modality (Eq. 20-24). Hatched: of the segmentation loss of the other "
        "modality's images, which only co-segmentation has.",
    ),
    "leak": Kind(
        leak.leak,
        lambda runs, results, seed: leak.leak_figure(results),
        leak.leak_table,
        "Whom the extra part head names when the selected features come from its own, another's or the mean weights "
        "w: the red bar is the share that it reads from w instead of from the image.",
    ),
}
"""Name on the command line → how it is made."""


def figure_file(run: Run, name: str) -> Path | None:
    """Name the picture in the run folder; the name says of which other data it is, see `Run.file_of`."""
    file = run.file_of(f"{name}.png")
    return file and file.parent / "figures" / file.name


def make_figure(name: str, runs: Sequence[Run], out: Path | None = None, seed: int = 0) -> list[Path]:
    """Draw a figure, write OUT/NAME.png, .svg and, with its numbers, .json, and print its table.

    The pictures say of which weights of the first run they are (`Source`).

    Args:
        name: a key of `FIGURES`.
        runs: opened runs.
        out: folder to write; by default RUN/figures of the first run, where the names are those of `figure_file`.
        seed: of every random draw; nothing is chosen by its result.

    Returns:
        The files.

    Raises:
        CsviError: a run has nothing for this figure; a model of the Hub has no folder to write to; or a seed that is
            negative or of more than 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise CsviError(f"seed is {seed}: it must be from 0 to {2**32 - 1}")
    kind = FIGURES[name]
    if len(runs) > 1 and not kind.several:
        raise CsviError(f"{name} shows one run, and {len(runs)} were given: choose one")
    file = figure_file(runs[0], name) if out is None else out / f"{name}.png"
    if file is None:
        raise CsviError(f"{runs[0].path} has no folder for its figures: say where to write with --out")
    numbers = kind.measure(runs, seed)
    picture = kind.draw(runs, numbers, seed)
    source = {"Source": fingerprint_of(runs[0].folder)} if runs[0].folder else None
    files = [file.with_suffix(suffix) for suffix in (".png", ".svg", ".json")]
    for file in files[:2]:
        with replacing(file) as partial:
            picture.savefig(partial, format=file.suffix[1:], dpi=150, metadata=source)
    with replacing(files[2]) as partial:
        several = numbers if isinstance(numbers, list) else [numbers]
        partial.write_text(json.dumps([dataclasses.asdict(each) for each in several], indent=1) + "\n")
    console = plain_console()
    if any(run.benchmark.synthetic for run in runs):
        console.print(SYNTHETIC)
    console.print(kind.table(numbers))
    return files
