"""Exports a network as one file, which is compared with PyTorch before it gets its name."""

import logging
import math
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import NamedTuple, get_args

import numpy as np

from csvi.errors import CsviError, in_one_line
from csvi.export.graph import BATCHES, Embed, Graph, embed_with, largest_difference
from csvi.export.onnx_file import FACTS as IN_ONNX
from csvi.export.onnx_file import Weights, write_onnx
from csvi.export.reduction import reduction_of
from csvi.export.torch_files import FACTS as IN_ARCHIVE
from csvi.export.torch_files import write_program, write_torchscript
from csvi.paths import check_ours
from csvi.runs.trained import Trained
from csvi.writing import replacing

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference, see `largest_difference`, between PyTorch and a file whose weights are in 32 bits."""

Write = Callable[[Graph, Mapping[str, object], Path], Embed]
"""Writes a graph, and the facts about it, to a file; returns what that computes."""


class Format(NamedTuple):
    """A kind of file."""

    suffix: str
    write: Mapping[str, Write]
    """What large weights are stored in → what writes them like this."""


FORMATS = {
    "onnx": Format(".onnx", {weights: partial(write_onnx, weights=weights) for weights in get_args(Weights)}),
    "torchscript": Format(".pt", {"float32": write_torchscript}),
    "pt2": Format(".pt2", {"float32": write_program}),
}
"""Name → kind of file."""


def export_file(
    model: Trained, kind: str, out: Path, weights: Weights = "float32", dimensions: int | None = None
) -> float:
    """Write a network as one file, which takes images of bytes, of any number and of either modality.

    Args:
        model: what is exported.
        kind: one of `FORMATS`.
        out: the file; one that csvi exported before is replaced once the new one is whole and compared.
        weights: what large weights are stored in; all is computed in float32.
        dimensions: reduce embeddings to so many numbers, see `csvi.export.reduction`.

    Returns:
        The largest difference of a number of an embedding from PyTorch's in float32, see `largest_difference`.

    Raises:
        CsviError: the format has other suffixes or weights, a file of somebody else is there, the network cannot be
            exported, its embeddings differ, the file cannot be written, or a library is not installed.
    """
    form = FORMATS[kind]
    if weights not in form.write:
        raise CsviError(f"weights of {kind} are stored in {' or '.join(form.write)}, not in {weights}")
    if out.suffix != form.suffix or out.is_dir():
        raise CsviError(f"{out} is no name for a file of {kind}: it must end in {form.suffix}, and be no folder")
    check_ours(out, is_ours)
    size = model.net.height, model.net.width
    blank = np.zeros((1, *size, 3), np.uint8)
    wanted, reduction = embed_with(model.net), None
    dim = wanted(blank, 0).shape[1]
    if dimensions is not None:
        reduction = reduction_of(model.folder, dimensions, dim, model.config)
        wanted, dim = embed_with(model.net, reduction), dimensions
    facts = model.facts(dim, weights, reduction.name if reduction else "")
    log.info("exporting %s to %s", model.name, kind)
    with replacing(out) as unproven:
        try:
            embed = form.write[weights](Graph(model.net, reduction), facts, unproven)
            log.info("comparing it with PyTorch on batches of %s images", ", ".join(map(str, BATCHES)))
            difference = largest_difference(embed, wanted, *size)
        except (CsviError, OSError):
            raise
        except Exception as error:  # a network of somebody else fails in PyTorch, ONNX and onnxruntime in every way
            raise CsviError(f"the network of {model.net.method} cannot be exported to {kind}: {_why(error)}") from error
        if not difference <= (TOLERANCE if weights == "float32" else math.inf):  # which NaN is not, either
            raise CsviError(
                f"embeddings of the exported file differ from PyTorch's by {difference:.1e}, more than "
                f"{TOLERANCE:.0e}: it is not kept; export to another format, and report this"
            )
    return difference


def is_ours(file: BufferedReader) -> bool:
    """Whether a file holds the facts that all that csvi exports does."""
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return b"%c%s\x12" % (len(IN_ONNX), IN_ONNX.encode()) in file.read()  # a string of Protobuf, before its value
    try:
        with zipfile.ZipFile(file) as archive:
            return any(PurePosixPath(name).name == IN_ARCHIVE for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _why(error: BaseException) -> str:
    """The words of the first exception: PyTorch wraps them in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return in_one_line(error)
