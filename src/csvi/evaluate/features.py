"""Embeddings from elsewhere, so that any other code can be scored by the same protocols."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from csvi.data.files import path_inside
from csvi.errors import CsviError
from csvi.evaluate.scoring import check_embeddings
from csvi.paths import open_file


def read_features(file: Path, paths: Sequence[str]) -> Tensor:
    """The embeddings of these images from a file, in their order: (paths, d); see `evaluate_features`."""
    try:
        with open_file(file) as opened:  # by us: NumPy leaves it open when it fails
            arrays = np.load(opened, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile) or not {"embedding", "path"} <= set(arrays.files):
                raise CsviError(f"{file} lacks an array: it must hold `embedding` (n, d) and `path` (n,)")
            embedding, path = arrays["embedding"], arrays["path"]
            if not isinstance(embedding, np.ndarray) or not isinstance(path, np.ndarray):
                raise ValueError("bytes that are no .npy")
    except FileNotFoundError as error:
        raise CsviError(f"no such file: {file}") from error
    except IsADirectoryError as error:
        raise CsviError(f"{file} is a folder: give the .npz file") from error
    except CsviError:
        raise
    except Exception as error:  # damaged files fail in NumPy and zipfile in every way
        if isinstance(error, OSError) and error.strerror:
            raise CsviError(f"cannot read {file}: {error.strerror}") from error
        raise CsviError(
            f"{file} is no .npz of plain arrays: save it with numpy.savez(file, embedding=..., path=...), the paths as "
            "strings"
        ) from error
    if path.ndim != 1 or path.dtype.kind not in "US":
        raise CsviError(f"path in {file} has shape {path.shape} and type {path.dtype}: it must be (n,) of strings")
    if embedding.dtype.kind != "f" or embedding.itemsize not in (2, 4, 8):
        raise CsviError(f"embedding in {file} has type {embedding.dtype}: it must be float16, float32 or float64")
    try:
        native = np.ascontiguousarray(embedding, f"f{embedding.itemsize}")
        embeddings = check_embeddings(torch.from_numpy(native), len(path))
    except CsviError as error:
        raise CsviError(f"{file}: {error}") from error
    rows: dict[str, int] = {}
    for row, name in enumerate(path.tolist()):
        name = path_inside(name.decode(errors="replace") if isinstance(name, bytes) else name, f"path {row} of {file}")
        if name in rows:
            raise CsviError(f"{file} has two embeddings of {name!r}: there must be one of each image")
        rows[name] = row
    missing = [name for name in paths if name not in rows]
    if missing:
        raise CsviError(
            f"{file} has no embedding of {len(missing)} of {len(paths)} test images, such as {missing[0]!r}: "
            "paths must be relative to the dataset's folder"
        )
    return embeddings[[rows[name] for name in paths]]
