"""How hard to check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dualstream_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dualstream_lab.load.gateway_wire import Transport

__all__ = ["VIAS", "Plan"]

VIAS: Final[Mapping[str, tuple[Transport, ...]]] = {"ws": ("ws",), "sse": ("sse",), "both": ("ws", "sse")}
_BOUNDS: Final = {
    "clients": (1, 5_000),
    "sources": (1, 1_000),
    "rate": (1, 50_000),
    "seconds": (1, 600),
    "seed": (0, 2**63 - 1),
}
_MOST: Final = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``rate`` events/s over ``sources`` for ``seconds``, to ``clients`` that come and go. ``via``: ws,
    sse, both.

    The same ``seed`` plans the same clients. Raises ConfigError.
    """

    clients: int = 100
    sources: int = 8
    rate: float = 2_000
    seconds: float = 30
    via: str = "both"
    seed: int = 1

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}: must be from {low:,} to {high:,} (is {value!r})")
        if self.via not in VIAS:
            raise ConfigError(f"via: must be one of {', '.join(VIAS)} (is {self.via!r})")
        if self.deliveries > _MOST:
            raise ConfigError(
                f"clients, sources, rate, seconds: that makes {self.deliveries:,.0f} deliveries, and at most "
                f"{_MOST:,} are recorded; more sources make fewer"
            )

    @property
    def most_of_a_client(self) -> int:
        """Deliveries, also with many repeats."""
        return round(3 * self.rate * self.seconds) + 100_000

    @property
    def deliveries(self) -> float:
        """About, if all were always connected and nothing came twice."""
        each = min(2, self.sources)
        return self.rate * self.seconds * self.clients * each / self.sources
