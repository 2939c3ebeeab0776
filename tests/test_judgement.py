"""The verdict on one fault: each rule that can keep it from passing, alone and against the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualstream_lab.analysis.paired import LOOKS, counts_of
from dualstream_lab.lab.isolation.blocks import HEALTHY, Figures
from dualstream_lab.lab.isolation.judgement import Rules, judge_fault
from dualstream_lab.verdict.checker import Validity

FAULT = "redis.kill"
ENOUGH = LOOKS[0]  # pairs


def block(arm: str, *, slower: float = 0.0, **values: Any) -> Figures:
    """A block of a thousand events around 3 ms, in which nothing went wrong."""
    spent = np.linspace(2.9, 3.1, 1000) + slower
    usual: dict[str, Any] = {
        "state": "finished", "begin": 0, "seconds": 4.0, "events": 1000, "durable": 1000, "failed": 0,
        "errors": {}, "missing": 0, "twice": 0, "nameless": 0, "wrong_source": 0, "caught_up": True,
        "unread": (), "spent": counts_of(spent), "p50": float(np.median(spent)),
        "p99": float(np.quantile(spent, 0.99)),
        "notified": 1000, "dropped": {}, "delivered": 1000, "orphans": 0, "stall": 1.0, "rss": (50.0, 51.0),
        "background": 0.0, "live_again": 0.1, "bite": "refused",
    }  # fmt: skip
    return Figures(arm=arm, **usual | values)


def judged(pairs: int, note: str = "", **values: Any) -> tuple[Validity, tuple[str, ...]]:
    """The verdict on so many blocks with the fault, each between healthy ones, and its reasons."""
    blocks = [block(HEALTHY)]
    for _ in range(pairs):
        blocks += [block(FAULT, **values), block(HEALTHY)]
    found = judge_fault(FAULT, blocks, Rules(), note)
    return found.verdict, found.reasons


UNREAD = {"caught_up": False, "unread": ("partition 1: gone",)}


@pytest.mark.parametrize(
    ("pairs", "note", "values", "verdict", "reasons"),
    [
        (ENOUGH, "", {}, "VALID", ()),
        (ENOUGH, "", {"failed": 2}, "INVALID", ("12 events failed",)),
        (ENOUGH, "", {"missing": 200}, "INVALID", ("1,200 acknowledged events are not in the topic",)),
        (ENOUGH, "", {"twice": 1}, "INVALID", ("6 events are in the topic more than once",)),
        (ENOUGH, "", {"notified": 990, "dropped": {"timeout": 9}}, "INVALID",
         ("6 notifications were neither sent nor counted as dropped",)),
        (ENOUGH, "", {"notified": 1001}, "INVALID",
         ("6 notifications were neither sent nor counted as dropped",)),
        (ENOUGH, "", {"orphans": 1}, "INVALID", ("6 events were delivered that nobody published",)),
        (3, "", {"slower": 5.0}, "INVALID",
         ("publish p99 is slower by 5.05 ms at least; 1.00 ms are allowed",)),
        (ENOUGH, "", {"failed": 1, "orphans": 1}, "INVALID",
         ("6 events failed", "6 events were delivered that nobody published")),
        # one that fails does so whatever else is not known
        (2, "it does not bite", {"failed": 1} | UNREAD, "INVALID", ("2 events failed",)),
        (ENOUGH, "it does not bite", {}, "INCONCLUSIVE", ("it does not bite",)),
        (ENOUGH, "it does not bite", UNREAD, "INCONCLUSIVE", ("it does not bite",)),
        (ENOUGH, "", UNREAD, "INCONCLUSIVE", ("the topic could not be read to its end; partition 1: gone",)),
        (0, "", {}, "INCONCLUSIVE", ("not measured",)),
        (ENOUGH, "", {"background": 0.2}, "INCONCLUSIVE",
         ("other programs used the machine in every block",)),
        (2, "", {}, "INCONCLUSIVE",
         ("p99 may be slower by up to 0.00 ms; 1.00 ms are allowed: more pairs needed",)),
        (1, "", {}, "INCONCLUSIVE",
         ("p99 may be slower by up to any amount; 1.00 ms are allowed: more pairs needed",)),
    ],
)  # fmt: skip
def test_what_keeps_a_fault_from_passing(
    pairs: int, note: str, values: dict[str, Any], verdict: str, reasons: tuple[str, ...]
) -> None:
    assert judged(pairs, note, **values) == (Validity[verdict], reasons)
