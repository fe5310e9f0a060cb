"""Functions compiled by numba."""

import functools
from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function to machine code that runs beside other threads; it is kept for the next process if it can be.

    Args:
        function: to compile; None for a decorator with options.
        options: of numba's `njit`.
    """
    if function is None:
        return functools.partial(compiled, **options)
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # installed read-only, and without a home folder
        return njit(nogil=True, **options)(function)
