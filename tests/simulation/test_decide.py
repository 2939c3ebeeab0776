"""The decision tree: the pattern's rows come out, with figures."""

from __future__ import annotations

import re

import pytest

from dualstream_lab.errors import ConfigError
from dualstream_lab.simulation.planning import trial_run
from dualstream_lab.simulation.planning.decide import Form, Stream, Wants, decide
from tests.simulation.invariants import unmeasured

KEPT, NOW = {"must_not_lose": True}, {"at_once": True}
LOST, LATER = {"must_not_lose": False}, {"at_once": False}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Fewer events are enough to see that something comes of them."""
    monkeypatch.setattr(trial_run, "_EVENTS", 5_000)


@pytest.mark.parametrize(
    ("wants", "stream", "forms"),
    [
        (KEPT | LATER, Stream.KAFKA, ()),
        (LOST | NOW, Stream.REDIS, ()),
        (KEPT | NOW, Stream.BOTH, ()),
        (LOST | LATER, Stream.NEITHER, ()),
        (KEPT | NOW | {"rate": 10_000}, Stream.BOTH, ()),
        (KEPT | NOW | {"rate": 10_001}, Stream.BOTH, (Form.BATCHED,)),
        (KEPT | NOW | {"rate": 50_000, "channels": 1_000}, Stream.BOTH, (Form.BATCHED,)),
        (KEPT | NOW | {"per_channel": 100_000, "channels": 10}, Stream.BOTH, (Form.LOCAL_FAN_OUT,)),
        (LOST | NOW | {"per_channel": 100_000, "channels": 10}, Stream.REDIS, (Form.LOCAL_FAN_OUT,)),
        (KEPT | NOW | {"rate": 5_000, "per_channel": 200}, Stream.BOTH, (Form.LOCAL_FAN_OUT,)),
        (KEPT | NOW | {"channels": 1_000_000}, Stream.BOTH, (Form.AGGREGATES,)),
        (KEPT | LATER | {"rate": 50_000, "channels": 1_000_000}, Stream.KAFKA, ()),
        (
            KEPT | NOW | {"rate": 20_000, "channels": 20_000, "per_channel": 5_000},
            Stream.BOTH,
            (Form.BATCHED, Form.LOCAL_FAN_OUT, Form.AGGREGATES),
        ),
    ],
)
def test_the_rows_of_the_pattern(wants, stream, forms):
    found = decide(Wants(**wants), unmeasured())
    assert (found.stream, found.forms) == (stream, forms)
    assert len(found.reasons) > len(forms)
    for reason in found.reasons:
        assert reason.why
        assert re.search(r"\d", reason.figure) or stream is Stream.NEITHER
        assert "never" not in reason.figure


def test_redis_only_is_named_as_outside_of_the_pattern_and_what_it_loses_as_lost():
    found = decide(Wants(must_not_lose=False, at_once=True, rate=200), unmeasured())
    assert "a signal that nobody would replay" in found.reasons[0].why
    assert "outside of the pattern" in found.reasons[0].why
    assert "90 s loses 18,000 events for good" in found.reasons[1].figure


@pytest.mark.parametrize(
    ("wants", "told"),
    [
        ({"rate": 0}, "rate: must be from 1 to"),
        ({"channels": 0}, "channels: must be from 1 to"),
        ({"per_channel": -1}, "per_channel: must be from 0 to"),
        ({"per_channel": 0}, "per_channel: must be above 0 where events are seen at once"),
        ({"per_channel": 1e6, "channels": 1_000_000}, "per_channel: .* at most"),
    ],
)
def test_what_cannot_be_wanted_is_refused_by_name(wants, told):
    with pytest.raises(ConfigError, match=told):
        Wants(must_not_lose=True, at_once=True, **wants)


def test_the_command_answers_in_one_line_and_says_why(dualstream):
    code, out, err = dualstream("decide", "--must-not-lose", "--at-once", "--rate", "20000")
    assert code == 0
    assert out.splitlines()[0] == "dual stream, Kafka first, then Redis: batched Redis"
    assert "acknowledged p99" in out
    assert "next: dualstream plan --rate 20000 --sources 100 --subscribers 100" in err


def test_the_command_asks_only_on_a_terminal(dualstream):
    code, out, err = dualstream("decide")
    assert (code, out) == (2, "")
    assert "say --must-not-lose or --may-be-lost, and --at-once or --later" in err
    assert dualstream("decide", "--at-once", "--rate", "5")[0] == 2


def test_the_command_asks_what_it_must_know(dualstream, monkeypatch):
    import io
    import sys

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"n\ny\n\n\n\n")))
    code, out, _ = dualstream("decide")
    assert code == 0
    assert "Will somebody miss an event that is lost?" in out
    assert "Redis only" in out
