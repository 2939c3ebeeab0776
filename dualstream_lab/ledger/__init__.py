"""The ledger: what became of each event on both paths, and why; and how each fault was got over.

::

    from dualstream_lab.ledger import Ledger

    ledger = Ledger.of("runs/redis_down-20250601-120000-3f9a")
    ledger.count("lost"), ledger.count("undelivered")
    print(ledger.entry(next(ledger.ids("undelivered"))))

A directory's rows become arrays (:mod:`.evidence`); the two paths are looked at one by one (:mod:`.log`,
:mod:`.live`) and put together (:mod:`.account`). Classes: :mod:`.classes`.
"""

from __future__ import annotations

from dualstream_lab.ledger.classes import CAUSES, CLASSES, MARKS, Cause, Class, Entry, Mark
from dualstream_lab.ledger.ledger import Ledger
from dualstream_lab.ledger.recovery import Path, Recovery, Series, grade, grade_all
from dualstream_lab.ledger.story import Moment, Story

__all__ = [
    "CAUSES", "CLASSES", "MARKS", "Cause", "Class", "Entry", "Ledger", "Mark", "Moment", "Path", "Recovery",
    "Series", "Story", "grade", "grade_all",
]  # fmt: skip
