"""Functions compiled by numba."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code that runs beside other threads; kept for the next process, where there is a folder to keep it in."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:  # installed read-only, and without a home folder
        return njit(nogil=True)(function)
