"""A layout: how a dataset is laid out on disk, how it is read, what it holds, and how it is tested.

To add one, derive from `Layout` in a file of your own and name it in `LAYOUTS`, or leave it outside the package and
name it as `module:Class` wherever a layout is asked for: `csvi check ROOT --data.layout their_module:TheirLayout`.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from csvi.config import DataConfig
from csvi.data.files import folder_names, image_names
from csvi.data.galleries import images_of, queries_of
from csvi.data.names import CAMERA
from csvi.data.records import Benchmark, Counts, ImageRecord, Modality
from csvi.errors import CsviError
from csvi.evaluate.protocols import NO_RULES, GalleryDraw, Protocol, Rules, Trial
from csvi.paths import expanded
from csvi.plugins import failure, find


class Layout:
    """The base of every layout; `read` and `title` are all that it must have."""

    title: str
    """Name of the dataset: `SYSU-MM01`."""
    folds: int = 1
    """Divisions of its identities into train and test, each a benchmark of its own."""
    counts: Mapping[str, Counts] = {}
    """`train`, `val`, `test` → what the dataset holds, in each of its folds; empty for people's own data."""
    rules: Rules = NO_RULES
    """Rules that its protocols are scored by."""
    directions: Mapping[Modality, str] = {
        Modality.INFRARED: "infrared to visible",
        Modality.VISIBLE: "visible to infrared",
    }
    """Modality of the queries → name of the search in the other modality; the first is the one that heads results."""
    draws: tuple[GalleryDraw, ...] = ("all",)
    """Ways that its galleries may be drawn; the first is the default."""
    folders: Mapping[str, Sequence[str]] = {}
    """Folders that a dataset in this layout must have → what people call them too, in lower case."""
    writer: str | None = None
    """`module:function` that plans a synthetic benchmark in this layout, called with preset and seed."""

    def read(self, root: Path, masks: Path | None = None, fold: int = 1) -> Benchmark:
        """List the images of one fold; no image is opened.

        Args:
            root: folder of the dataset.
            masks: folder of person masks, by default ROOT/masks where it exists; see `attach_masks`.
            fold: from 1 to `folds`.

        Raises:
            CsviError: something is missing or wrong.
        """
        raise NotImplementedError

    def recognise(self, root: Path) -> bool:
        """Whether a folder looks like this layout; never raises."""
        return root.is_dir()

    def has_fold(self, root: Path, fold: int) -> bool:
        """Whether a folder has this fold, readable or not; a copy may come without some of several."""
        return True

    def paths(self) -> Iterable[str]:
        """Images of the dataset that no list file on disk names."""
        return ()

    def protocols(
        self, records: Sequence[ImageRecord], draw: GalleryDraw, root: Path, trials: int = 10
    ) -> list[Protocol]:
        """The protocols on the images of one split; the first is the one that results are headed by.

        By default every image of the one modality is searched among every image of the other, in both directions;
        distractors are in galleries alone.

        Args:
            records: images of the split, in any order.
            draw: one of `draws`.
            root: folder of the dataset, which may hold official galleries.
            trials: galleries of each protocol that draws.

        Raises:
            CsviError: there is nothing to ask or to search, or the galleries cannot be drawn.
        """
        why = "a split needs visible and infrared ones to be searched (docs/data.md)"
        images = [images_of(records, modality, why) for modality in Modality]
        asked = [queries_of(records, modality, why) for modality in Modality]
        return [
            Protocol(name, self.rules, draw, [Trial(asked[modality], images[1 - modality])])
            for modality, name in self.directions.items()
        ]


LAYOUTS = {
    "sysu": "csvi.data.sysu:Sysu",
    "regdb": "csvi.data.regdb:RegDB",
    "llcm": "csvi.data.llcm:LLCM",
    "folder": "csvi.data.folder:Folder",
}
"""Name in the settings → class."""
MOST_FOLDERS = 100
"""Folders that are looked into for a dataset that lies one folder deeper."""
TELLING = 5
"""Folders of a layout that, together, hardly anything else has."""


def find_layout(name: str) -> Layout:
    """The layout of this name: one of `LAYOUTS`, or `module:Class`; raises `CsviError` if there is none."""
    layout: Layout = find(name, LAYOUTS, Layout, "layout")()
    return layout


def recognise(root: str | os.PathLike[str]) -> str | None:
    """Name of the first of `LAYOUTS` that a folder looks like, if any."""
    root = expanded(root)
    return next((name for name in LAYOUTS if find_layout(name).recognise(root)), None)


def advice_on(root: Path, layout: str | None = None) -> str | None:
    """Say what a folder that no layout recognises seems to be, and what to do: one too high or too deep, or misnamed.

    Args:
        root: the folder.
        layout: name of the layout that it should have, if known.
    """
    if not root.is_dir():
        return None
    names = folder_names(root)
    wanted = find_layout(layout).folders if layout else {}
    if renaming := _renaming(names, wanted):
        return renaming
    if any(name in wanted for name in names):  # it is that layout; its reader says what is missing
        return None
    deeper = [name for name in names[:MOST_FOLDERS] if recognise(root / name)]
    if deeper:
        more = f" (or another of {len(deeper)})" if len(deeper) > 1 else ""
        return f"a dataset lies one folder deeper, give {root / deeper[0]}{more}"
    for parent in root.absolute().parents[:2]:
        if found := recognise(parent):
            return f"it is a part of a dataset that is laid out as {find_layout(found).title}, give {parent}"
    for name in LAYOUTS:
        if renaming := _renaming(names, find_layout(name).folders):
            return f"{renaming}, for --data.layout {name}"
    lacking = what_is_lacking(root)
    return lacking and f"it {lacking}"


def what_is_lacking(root: Path) -> str | None:
    """Say what a folder lacks that has all folders of a layout that has many but one: a dataset, and not crops."""
    names = folder_names(root)
    for layout in map(find_layout, LAYOUTS):
        missing = [folder for folder in layout.folders if folder not in names]
        if len(layout.folders) < TELLING or len(missing) != 1:
            continue
        other_cameras = any(CAMERA.fullmatch(name) for name in names if name not in layout.folders)
        if not other_cameras and not any(image_names(root / folder) for folder in layout.folders):
            return f"looks like {layout.title} without {missing[0]}: copy it there"
    return None


def check_layout(root: Path, name: str) -> None:
    """Raises `CsviError` if a folder has another layout than this, or seems to be another folder, see `advice_on`."""
    layout = find_layout(name)
    if layout.recognise(root):
        return
    if found := recognise(root):
        raise CsviError(
            f"{root} is not laid out as {layout.title} but as {find_layout(found).title}: set --data.layout {found}"
        )
    if advice := advice_on(root, name):
        raise CsviError(f"{root} is not laid out as {layout.title}: {advice}")


def _renaming(names: Sequence[str], wanted: Mapping[str, Sequence[str]]) -> str | None:
    """Say how to rename folders, if all that are wanted are there under these or other names."""
    alike = {name.casefold(): name for name in names}
    there = {
        folder: folder if folder in names else next((alike[n] for n in (folder.lower(), *others) if n in alike), None)
        for folder, others in wanted.items()
    }
    wrong = {folder: name for folder, name in there.items() if name != folder}
    if not wrong or None in wrong.values():
        return None
    they = "it" if len(wrong) == 1 else "them"
    return f"it holds {_in_words(map(str, wrong.values()))}, rename {they} {_in_words(wrong)}"


def _in_words(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def read_benchmark(data: DataConfig) -> Benchmark:
    """Read the dataset, and the fold of it, that the settings name.

    Raises:
        CsviError: no root is given, the dataset has no such fold, the folder is another one (see `advice_on`), or the
            reader finds something wrong.
    """
    if not data.root:
        raise CsviError("no dataset: give its folder with --data.root")
    layout, root = find_layout(data.layout), expanded(data.root)
    if not 1 <= data.fold <= layout.folds:
        folds = "one fold" if layout.folds == 1 else f"the folds 1 to {layout.folds}"
        raise CsviError(f"{layout.title} has {folds}: there is no --data.fold {data.fold}")
    check_layout(root, data.layout)
    return read_fold(data.layout, root, Path(data.masks) if data.masks else None, data.fold)


def read_fold(layout: str, root: Path, masks: Path | None = None, fold: int = 1) -> Benchmark:
    """Read one fold of a dataset by the layout of this name, which the benchmark keeps; see `Layout.read`.

    Raises:
        CsviError: as `Layout.read` does; or a layout of somebody else raises anything.
    """
    reader = find_layout(layout)
    try:
        benchmark = reader.read(root, masks, fold)
        if not isinstance(benchmark, Benchmark):
            raise TypeError(f"read must return a Benchmark, and not {benchmark!r:.40}")
    except CsviError:
        raise
    except Exception as error:
        if layout in LAYOUTS:
            raise
        raise CsviError(f"{layout} cannot read {root} ({failure(error, layout)})") from error
    return dataclasses.replace(benchmark, layout=layout, fold=fold)


def protocols_of(
    benchmark: Benchmark, split: Literal["val", "test"] = "test", gallery: GalleryDraw | None = None, trials: int = 10
) -> list[Protocol]:
    """The protocols of a benchmark's layout on one of its splits, see `Layout.protocols`.

    Galleries are drawn as `gallery` says, by default as the layout's first choice. Raises `CsviError` if the layout has
    no such draw, or as `Layout.protocols` does.
    """
    layout = find_layout(benchmark.layout)
    if gallery is not None and gallery not in layout.draws:
        raise CsviError(
            f"the galleries of {benchmark.name} are {' or '.join(layout.draws)}, not {gallery} (docs/protocols.md)"
        )
    return layout.protocols(benchmark.splits[split], gallery or layout.draws[0], benchmark.root, trials)
