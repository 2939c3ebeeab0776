"""What the commands' exit codes mean, beside 0 (good) and 1 (a bad result)."""

from __future__ import annotations

from typing import Final

USAGE: Final = 2
UNAVAILABLE: Final = 3
INCONCLUSIVE: Final = 4
MISSED: Final = 99
"""A threshold was missed."""
INTERRUPTED: Final = 130
