"""The failure lab's faults: each proves that it bites, and that it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualstream_lab.lazy import attribute

if TYPE_CHECKING:
    from dualstream_lab.faults.spec import CATALOGUE, FaultSpec

__all__ = ["CATALOGUE", "FaultSpec"]


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, "dualstream_lab.faults.spec" if name in __all__ else None, extra="load")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
