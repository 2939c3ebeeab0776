"""Every rule of a fault's judge is said where its condition holds, and none of them anywhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualstream_lab.analysis.paired import LOOKS, counts_of
from dualstream_lab.lab.isolation.blocks import HEALTHY, Figures
from dualstream_lab.lab.isolation.judgement import (
    ABOUT_LATENCY,
    DOUBTS,
    FAILURES,
    FaultVerdict,
    Rules,
    judge,
    judge_fault,
)
from dualstream_lab.lab.isolation.proof import Options, Proof
from dualstream_lab.lab.isolation.text import check_proof, headline, page
from dualstream_lab.verdict.checker import Validity

FAULT = "redis.kill"
RULES, FUNCTIONAL = Rules(), Rules(latency_judged=False)


def block(arm: str, *, p99: float = 2.0, **changes: Any) -> Figures:
    spent = np.full(400, p99)
    usual: dict[str, Any] = {
        "state": "finished", "begin": 0, "seconds": 3.0, "events": 400, "durable": 400, "failed": 0,
        "errors": {}, "missing": 0, "twice": 0, "nameless": 0, "wrong_source": 0, "caught_up": True,
        "unread": (), "notified": 400, "dropped": {}, "delivered": 400, "orphans": 0, "stall": 1.0,
        "rss": (50.0, 51.0), "background": 0.0, "live_again": None, "bite": "",
    }  # fmt: skip
    return Figures(arm=arm, spent=counts_of(spent), p50=p99, p99=p99, **(usual | changes))


def blocks(pairs: int, **changes: Any) -> list[Figures]:
    both = [one for _ in range(pairs) for one in (block(HEALTHY), block(FAULT, **changes))]
    return [*both, block(HEALTHY)]


def judged(*, pairs: int = LOOKS[-1], note: str = "", rules: Rules = RULES, **changes: Any) -> FaultVerdict:
    return judge_fault(FAULT, blocks(pairs, **changes), rules, note)


REASONS: Mapping[str, tuple[dict[str, Any], str]] = {
    "failed": ({"pairs": 2, "failed": 3}, "6 events failed"),
    "missing": ({"pairs": 2, "missing": 1}, "2 acknowledged events are not in the topic"),
    "twice": ({"pairs": 1, "twice": 1}, "1 events are in the topic more than once"),
    "unaccounted": (
        {"pairs": 1, "notified": 398}, "2 notifications were neither sent nor counted as dropped"),
    "orphans": ({"pairs": 1, "orphans": 4}, "4 events were delivered that nobody published"),
    "slower": ({"p99": 9.0}, "publish p99 is slower by "),
    "given up": ({"note": "it does not bite"}, "it does not bite"),
    "unread": (
        {"caught_up": False, "unread": ("partition 0",)},
        "the topic could not be read to its end; partition 0"),
    "not measured": ({"pairs": 0}, "not measured"),
    "disturbed": ({"background": 0.5}, "other programs used the machine in every block"),
    "undecided": ({"pairs": 1}, "p99 may be slower by up to "),
}  # fmt: skip


def test_every_rule_about_a_fault_has_a_case() -> None:
    assert {rule.name for rule in (*FAILURES, *DOUBTS)} == REASONS.keys()


@pytest.mark.parametrize("case", REASONS)
def test_why_a_fault_does_not_pass_is_said_in_one_sentence(case: str) -> None:
    changes, said = REASONS[case]
    found = judged(**changes)
    (reason,) = found.reasons
    assert reason.startswith(said)
    fails = case in {rule.name for rule in FAILURES}
    assert found.verdict is (Validity.INVALID if fails else Validity.INCONCLUSIVE)


def test_a_fault_of_which_nothing_is_to_be_said_passes() -> None:
    assert (judged().verdict, judged().reasons) == (Validity.VALID, ())


def test_what_fails_is_not_called_open() -> None:
    assert judged(pairs=1, failed=1, twice=1, note="it does not bite").reasons == (
        "1 events failed", "1 events are in the topic more than once",
    )  # fmt: skip


def test_the_rules_about_latency_are_rules() -> None:
    assert {rule.name for rule in (*FAILURES, *DOUBTS)} > ABOUT_LATENCY


@pytest.mark.parametrize("case", REASONS)
def test_functionally_only_the_rules_about_latency_do_not_apply(case: str) -> None:
    changes, said = REASONS[case]
    found = judged(rules=FUNCTIONAL, **changes)
    if case in ABOUT_LATENCY:
        assert (found.verdict, found.reasons) == (Validity.VALID, ())
    else:
        assert found.verdict is judged(**changes).verdict is not Validity.VALID
        assert found.reasons[0].startswith(said)


def test_functionally_one_pair_on_a_busy_machine_is_enough_and_its_p99_is_shown() -> None:
    found = judged(rules=FUNCTIONAL, pairs=1, p99=9.0, background=2.0)
    assert found.verdict is Validity.VALID
    assert (found.p99.pairs, round(found.p99.value)) == (1, 7)


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({}, Validity.VALID, "no Redis fault of 1 fails, loses or repeats a publish. "),
        ({"failed": 1}, Validity.INVALID, "FAILS: at 2,000 events/s, Redis trouble reaches its publishes"),
        ({"state": "void"}, Validity.INCONCLUSIVE, "inconclusive at 2,000 events/s"),
    ],
)
def test_every_report_of_a_functional_proof_says_that_latency_was_not_judged(
    changes: dict[str, Any], verdict: Validity, said: str
) -> None:
    options = Options(faults=(FAULT,), rate=2000, rules=FUNCTIONAL)
    metadata = {
        "proof": "redis-isolation", "options": options.as_dict(), "seconds": 9.0, "began": "then",
        "machine": {"cores": 2, "architecture": "x", "system": "y"}, "versions": {},
    }  # fmt: skip
    judgement = judge(blocks(1, p99=900.0, **changes), options.faults, options.rules, {})
    proof = Proof(
        path=Path("kept"), options=options, state="finished", judgement=judgement, metadata=metadata,
        problems=(),
    )  # fmt: skip
    assert judgement.verdict is verdict
    assert said in headline(proof)
    assert headline(proof).endswith(" Latency was not judged.")
    found = check_proof(proof)  # of which JSON and JUnit are made
    assert found.validity is verdict
    assert found.about["latency"] == "not judged: shown only"
    assert found.values["judgement"]["latency_judged"] is False
    assert "not judged" in str(found.criteria[0].text)
    assert json.loads(json.dumps(found.values, allow_nan=False))
    html = page(proof)
    assert "<b>Latency was not judged</b>" in html
    assert "slows" not in html
    assert "redis-isolation --rate 2000" in html
    assert "--functional" in html
    assert "--margin" not in html
