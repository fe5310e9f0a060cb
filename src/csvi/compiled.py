"""Functions compiled by numba."""

import functools
from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile a function to machine code that runs beside other threads, see `kept`.

    Args:
        function: to compile; None for a decorator with options.
        options: of numba's `njit`.
    """
    if function is None:
        return functools.partial(compiled, **options)
    return kept(functools.partial(njit, nogil=True, **options), function)


def kept(compiler: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """Compile a function by numba's `njit`, `cfunc` or the like; its code is kept for the next process if it can be."""
    try:
        return compiler(cache=True)(function)
    except RuntimeError:  # installed read-only, and without a home folder
        return compiler()(function)
