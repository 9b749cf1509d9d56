"""Loops that numba compiles, cached where there is a folder to write to."""

from collections.abc import Callable

import numba


def compiled(**options: object) -> Callable:
    """Decorator: `numba.njit` that lets other threads run; `options` are numba's.

    What was compiled is kept beside the code, or in the user's cache. Where neither can be written,
    as in a container without a home, it is compiled afresh in each process instead.
    """

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError as error:
            if "no locator available" not in str(error):
                raise
            return numba.njit(nogil=True, **options)(function)

    return decorate
