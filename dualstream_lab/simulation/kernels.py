"""The one place where the model's loops become machine code."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numba

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["kernel"]

F = TypeVar("F", bound="Callable[..., object]")


def kernel(function: F) -> F:
    """Compile a plain function of arrays and numbers. What it gives is the same on every machine: no fast
    mathematics, one thread. The code is kept beside the module, so only the first run compiles.

    Whoever changes a kernel removes ``__pycache__`` here: one that is called from another module is
    compiled into its caller, which does not notice.
    """
    # numba has no types: the function keeps its own, which is what it is called with
    return numba.njit(function, cache=True, fastmath=False)  # type: ignore[no-any-return]
