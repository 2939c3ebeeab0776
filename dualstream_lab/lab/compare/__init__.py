"""Runs side by side: what really changed, as tables, a page, and a verdict for CI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.lazy import attribute

if TYPE_CHECKING:
    from dualstream_lab.lab.compare.text import table

__all__ = ["table"]


def __getattr__(name: str) -> object:
    return attribute(__name__, name, f"{__name__}.text" if name in __all__ else None, extra="lab")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
