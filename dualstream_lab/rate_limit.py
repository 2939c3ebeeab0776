"""So many a second for each client. Without a clock of its own."""

from __future__ import annotations

from typing import Final

__all__ = ["RateLimit"]

_BURST: Final = 1.0  # s whose units may be had at once
_MOST: Final = 10_000  # clients that are remembered


class RateLimit:
    """Lets each client have ``rate`` units/s in the mean, and those of a second at once; 0: any number.

    What was begun may take more than is left, and the client waits the longer afterwards. So a request need
    not say beforehand how much it is, and one that is larger than a second's units still passes.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._paid_at: dict[str, float] = {}  # when each client's units so far will have been paid for

    def wait(self, client: str, now: float) -> float:
        """How long (s) the client has to wait until it may take something; 0.0: it may now."""
        return max(0.0, self._paid_at.get(client, now) - now - _BURST)

    def take(self, client: str, units: float, now: float) -> None:
        """Count what the client has had."""
        if self.rate == 0:
            return
        before = max(now, self._paid_at.pop(client, now))
        self._paid_at[client] = before + units / self.rate
        if len(self._paid_at) > _MOST:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Those that owe nothing; if all do, those that took something the longest ago."""
        owing = {client: at for client, at in self._paid_at.items() if at > now}
        self._paid_at = dict(list(owing.items())[-_MOST // 2 :])
