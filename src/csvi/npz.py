"""Reads .npz files of anybody: arrays by name, or one sentence that says what is wrong."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from csvi.errors import CsviError
from csvi.paths import open_file


def read_arrays(file: Path, needed: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Read arrays of plain values, and unpickle none.

    Args:
        file: .npz.
        needed: name of an array that it must hold → its shape in words, as `(n, d)`.

    Raises:
        CsviError: there is no such file, it is damaged or none of this kind, or an array is missing.
    """
    try:
        with open_file(file) as opened:  # by us: NumPy leaves it open when it fails
            arrays = np.load(opened, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile) or not needed.keys() <= set(arrays.files):
                *first, last = (f"`{name}` {shape}" for name, shape in needed.items())
                raise CsviError(f"{file} lacks an array: it must hold {', '.join(first)} and {last}")
            found = {name: arrays[name] for name in needed}
            if not all(isinstance(array, np.ndarray) for array in found.values()):
                raise ValueError("bytes that are no .npy")
            return found
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
