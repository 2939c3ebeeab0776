"""The failure lab's faults: each proves that it bites, and that it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualstream_lab.lazy import attribute

if TYPE_CHECKING:
    from dualstream_lab.faults.catalogue import CATALOGUE
    from dualstream_lab.faults.spec import FaultSpec

__all__ = ["CATALOGUE", "FaultSpec"]

_HOMES = {"CATALOGUE": "dualstream_lab.faults.catalogue", "FaultSpec": "dualstream_lab.faults.spec"}


def __getattr__(name: str) -> Any:
    return attribute(__name__, name, _HOMES.get(name), extra="load")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
