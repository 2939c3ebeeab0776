"""Every fault by its name."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dualstream_lab.faults.contract import Fault

__all__ = ["CATALOGUE"]

_MODULES = ("redis", "redis_settings", "redis_clients", "kafka", "gateway", "network")


def _faults() -> dict[str, type[Fault]]:
    found: dict[str, type[Fault]] = {}
    for module in _MODULES:
        if find_spec(f"dualstream_lab.faults.{module}"):
            found |= {one.name: one for one in import_module(f"dualstream_lab.faults.{module}").FAULTS}
    return found


CATALOGUE: Final[Mapping[str, type[Fault]]] = _faults()
