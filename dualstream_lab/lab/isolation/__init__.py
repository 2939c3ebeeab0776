"""The isolation proof: Redis trouble never fails or slows a publish.

::

    from dualstream_lab.lab import isolation

    proof = await isolation.prove(isolation.Options(faults=("redis.kill",), time=100))
    print(isolation.headline(proof))
    isolation.table(proof)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualstream_lab.lazy import attribute

if TYPE_CHECKING:
    from dualstream_lab.lab.isolation.blocks import Timing
    from dualstream_lab.lab.isolation.judgement import Rules
    from dualstream_lab.lab.isolation.proof import Options, Proof, prove
    from dualstream_lab.lab.isolation.text import headline, plot_proof, table

__all__ = ["Options", "Proof", "Rules", "Timing", "headline", "plot_proof", "prove", "table"]

_HOMES = {
    "Options": "proof", "Proof": "proof", "Rules": "judgement", "Timing": "blocks", "headline": "text",
    "plot_proof": "text", "prove": "proof", "table": "text",
}  # fmt: skip


def __getattr__(name: str) -> object:
    home = f"{__name__}.{_HOMES[name]}" if name in _HOMES else None
    return attribute(__name__, name, home, extra="lab")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
