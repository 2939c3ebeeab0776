"""What the lab's tests shorten."""

from __future__ import annotations

import pytest

from dualstream_lab.lab import Scenario


@pytest.fixture
def _short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second where a scenario does not say."""
    monkeypatch.setitem(Scenario.__init__.__kwdefaults__, "warm_up", 0.5)
