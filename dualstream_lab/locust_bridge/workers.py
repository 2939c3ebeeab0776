"""The processes of a test: who is still at it, who is done, who is gone."""

from __future__ import annotations

import time
from typing import Any

import gevent
from locust.runners import STATE_MISSING, MasterRunner


class Workers:
    """A master's workers, or the one process that is alone. ``members``: their ids, in order."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._alone = not isinstance(runner, MasterRunner)
        self.members = ["local"] if self._alone else sorted(c.id for c in runner.clients.ready)
        self.writing = set(self.members)
        """Who may still write into the run directory."""
        self._over: set[str] = set()

    def over(self, member: str) -> None:
        """A worker is done with its part of the plan."""
        self._over.add(member)

    def finished(self, member: str) -> None:
        """A worker has closed its session."""
        self.writing.discard(member)

    @property
    def lost(self) -> set[str]:
        """Those that should still be at work, and do not live any more."""
        if self._alone:
            return set()
        return self.writing - {c.id for c in self._runner.clients.all if c.state != STATE_MISSING}

    @property
    def all_over(self) -> bool:
        """Whether nobody is at work."""
        return self.writing - self.lost <= self._over

    def wait_until_finished(self, timeout: float) -> None:
        """Until everybody who lives has closed its session, at most ``timeout`` s."""
        deadline = time.monotonic() + timeout
        while self.writing - self.lost and time.monotonic() < deadline:
            gevent.sleep(0.05)
