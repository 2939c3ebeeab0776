"""Every fault by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dualstream_lab.faults import gateway, kafka, network, redis, redis_clients, redis_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dualstream_lab.faults.contract import Fault

__all__ = ["CATALOGUE"]

_MODULES: Final = (redis, redis_settings, redis_clients, kafka, network, gateway)

CATALOGUE: Final[Mapping[str, type[Fault]]] = {
    kind.name: kind for module in _MODULES for kind in module.FAULTS
}
