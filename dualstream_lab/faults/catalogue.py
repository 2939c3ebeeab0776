"""Every fault by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dualstream_lab.faults import network, process
from dualstream_lab.faults.kafka import process as kafka
from dualstream_lab.faults.redis import clients, settings
from dualstream_lab.faults.redis import process as redis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dualstream_lab.faults.fault import Fault

__all__ = ["CATALOGUE"]

_MODULES: Final = (redis, settings, clients, kafka, network, process)

CATALOGUE: Final[Mapping[str, type[Fault]]] = {
    kind.name: kind for module in _MODULES for kind in module.FAULTS
}
