"""For other people's tests: a publisher and a gateway without brokers, with the real ones' code.

The tests that are meant for any publisher (``tests/publisher/test_conformance.py``) and for any gateway
(``tests/gateway/test_conformance.py``) hold them to the real ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.lazy import attribute
from dualstream_lab.testing.publisher import MemoryPublisher

if TYPE_CHECKING:
    from dualstream_lab.testing.gateway import MemoryGateway

__all__ = ["MemoryGateway", "MemoryPublisher"]

_HOMES = {"MemoryGateway": f"{__name__}.gateway"}


def __getattr__(name: str) -> object:
    return attribute(__name__, name, _HOMES.get(name), extra="gateway")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
