"""Each class, cause and mark, on a run made by hand that has it."""

from __future__ import annotations

import json

import pytest

from dualstream_lab.errors import EventError
from dualstream_lab.ledger import CAUSES, CLASSES, MARKS, Ledger
from dualstream_lab.recording import Ending, Outcome

from .builder import IDS, RunBuilder, marked, told


@pytest.fixture
def builder(tmp_path):
    made = RunBuilder(tmp_path / "run")
    made.listened(0, 5000)
    return made


def test_durable_and_delivered(builder):
    builder.flow(0, 1, 2)
    ledger = builder.ledger()
    assert told(ledger) == dict.fromkeys(range(3), "delivered")
    assert (ledger.lost, ledger.orphans, ledger.broken, ledger.problems) == (0, 0, False, ())
    (entry,) = ledger.entries
    assert (entry.count, entry.share, entry.examples) == (3, 1.0, tuple(IDS.of(n) for n in range(3)))


def test_delivered_to_one_subscriber_and_not_by_another_one_that_was_listening(builder):
    builder.listened(0, 5000, who=1)
    builder.flow(0, 1, 2)
    for seq in (0, 2):
        builder.delivered(seq, 14 + seq, who=1)
    assert told(builder.ledger()) == {0: "delivered", 1: "undelivered: unexplained", 2: "delivered"}


def test_given_up_by_the_publisher_and_why(builder):
    builder.flow(0, 1, 5)
    for seq, why in ((2, "redis timeout"), (3, "queue full"), (4, "redis down")):
        builder.sent(seq, 11)
        builder.read(seq, 16)
        builder.given_up(seq, 13, why)
    found = told(builder.ledger())
    assert found[2] == "undelivered: dropped by the publisher: redis timeout"
    assert found[3] == "undelivered: dropped by the publisher: queue full"
    assert found[4] == "undelivered: dropped by the publisher: redis down"
    assert found[5] == "delivered"


def test_nobody_was_subscribed(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(500, 5000)
    builder.sent(0, 10)
    builder.read(0, 20)
    assert told(builder.ledger()) == {0: "undelivered: no subscriber"}


def test_a_run_without_subscribers(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.sent(0, 10)
    builder.read(0, 20)
    ledger = builder.ledger()
    assert told(ledger) == {0: "undelivered: no subscriber"}
    assert "no subscriber was recorded" in ledger.problems


def test_in_the_gap_of_the_only_subscriber(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(0, 100, Ending.LOST)
    builder.listened(200, 5000)
    builder.flow(0, at=50)
    builder.sent(1, 150)
    builder.read(1, 160)
    builder.flow(2, at=300)
    ledger = builder.ledger()
    assert told(ledger) == {0: "delivered", 1: "undelivered: reconnect gap", 2: "delivered"}


def test_a_gap_of_one_while_the_other_one_hears_is_no_silence_but_is_marked(builder):
    builder.listened(0, 100, Ending.LOST, who=1)
    builder.listened(200, 5000, who=1)
    builder.flow(0, at=150)
    ledger = builder.ledger()
    assert told(ledger) == {0: "delivered"}
    assert marked(ledger) == {0: {"before-consumer", "missed-in-gap"}}


def test_on_its_way_when_the_connection_was_lost(builder):
    builder.listened(0, 100, Ending.LOST, who=1)
    builder.flow(0, at=90)
    builder.delivered(0, 93.5, who=1)
    builder.flow(1, at=94)  # delivered to the first at 97, while the other one was still connected
    assert told(builder.ledger()) == {0: "delivered", 1: "undelivered: reconnect gap"}


def test_a_hole_before_the_end_of_a_connection_is_not_blamed_on_it(builder):
    builder.listened(0, 100, Ending.LOST, who=1)
    builder.flow(0, 1, 2, at=50, step=10)
    builder.delivered(0, 54, who=1)
    builder.delivered(2, 74, who=1)
    assert told(builder.ledger())[1] == "undelivered: unexplained"


def test_killed_for_slowness(builder):
    builder.listened(0, 100, Ending.LOST, who=1)
    builder.interval(80, 180, counters={"redis.killed_slow": 1})
    builder.flow(0, 1, at=50)
    builder.delivered(0, 99, who=1)  # late: it reads slowly
    assert told(builder.ledger()) == {0: "delivered", 1: "undelivered: killed as slow"}


def test_redis_does_not_kill_the_clients_of_a_gateway(builder):
    builder.listened(0, 100, Ending.LOST, who=1, writer="worker0")
    builder.interval(80, 180, counters={"redis.killed_slow": 1})
    builder.interval(80, 180, writer="worker0", gauges={"delivered.via_gateway": 1.0})
    builder.flow(0, 1, at=50)
    builder.delivered(0, 99, who=1, writer="worker0")
    assert told(builder.ledger()) == {0: "delivered", 1: "undelivered: reconnect gap"}


def test_the_listener_died(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(0)
    builder.flow(0, at=10)
    builder.sent(1, 20)
    builder.read(1, 25)
    assert told(builder.ledger()) == {0: "delivered", 1: "undelivered: generator"}


def test_cut_off_at_the_end_of_the_recording(builder):
    builder.listened(0, 100, who=1)
    builder.flow(0, at=90)
    assert told(builder.ledger()) == {0: "undelivered: generator"}


def test_lost_and_orphans(builder):
    builder.flow(0)
    builder.sent(1, 20)
    builder.delivered(1, 23)
    builder.sent(2, 20)
    builder.delivered(7, 30)  # nobody published it, and Kafka does not have it
    builder.sent(8, 31, outcome=Outcome.REJECTED)
    builder.delivered(8, 33)
    ledger = builder.ledger()
    assert told(ledger) == {0: "delivered", 1: "lost", 2: "lost", 7: "orphan", 8: "orphan"}
    assert (ledger.lost, ledger.orphans, ledger.broken) == (2, 2, True)
    assert list(ledger.ids("lost")) == [IDS.of(1), IDS.of(2)]


def test_delivered_after_giving_up(builder):
    builder.flow(0, 1)
    builder.given_up(1, 12.5, "redis timeout")
    assert told(builder.ledger()) == {0: "delivered", 1: "delivered-after-giving-up"}


def test_unknown_and_what_it_turned_out_to_be(builder):
    builder.sent(0, 10, outcome=Outcome.UNKNOWN)
    builder.read(0, 15)
    builder.delivered(0, 14)
    builder.sent(1, 10, outcome=Outcome.UNKNOWN)
    builder.sent(2, 10, outcome=Outcome.PENDING)
    builder.sent(3, 10, outcome=Outcome.UNKNOWN)
    builder.delivered(3, 14)
    assert told(builder.ledger()) == {
        0: "unknown-in-log", 1: "unknown-not-in-log", 2: "unknown-not-in-log", 3: "orphan",
    }  # fmt: skip


def test_refused(builder):
    builder.sent(0, 10, outcome=Outcome.REJECTED)
    builder.sent(1, 10, outcome=Outcome.NO_ROOM)
    builder.sent(2, 10, outcome=Outcome.REJECTED)
    builder.read(2, 15)
    ledger = builder.ledger()
    assert told(ledger) == {0: "refused", 1: "refused", 2: "refused-in-log"}
    assert not ledger.broken


def test_nobody_read_the_log_to_its_end(tmp_path):
    builder = RunBuilder(tmp_path / "run", caught_up=False)
    builder.listened(0, 5000)
    builder.flow(0)
    builder.sent(1, 20)
    builder.sent(2, 20, outcome=Outcome.UNKNOWN)
    ledger = builder.ledger()
    assert told(ledger) == {0: "delivered", 1: "unread", 2: "unknown-open"}
    assert ledger.lost is None
    assert "the Kafka consumer did not read to the end of the log" in ledger.problems


def test_without_a_consumer_the_acknowledgement_counts(tmp_path):
    builder = RunBuilder(tmp_path / "run", caught_up=None)
    builder.listened(0, 5000)
    builder.sent(0, 10)
    builder.delivered(0, 13)
    builder.sent(1, 10)
    builder.delivered(9, 30)
    ledger = builder.ledger()
    assert told(ledger) == {0: "delivered", 1: "undelivered: unexplained", 9: "orphan"}
    assert (ledger.lost, ledger.orphans) == (None, 1)
    assert any("no Kafka consumer was recorded" in problem for problem in ledger.problems)


def test_late_by_catch_up_and_by_repair(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(0, 5000)
    builder.listened(0, 100, Ending.LOST, who=1)
    builder.listened(200, 5000, who=1)
    builder.flow(0, at=20)
    builder.caught(0, 50, who=1, repair=True)
    builder.flow(1, at=150)
    builder.caught(1, 202, who=1)
    builder.flow(2, at=300)
    builder.delivered(2, 303.5, who=1)
    builder.caught(2, 305, who=1)  # a repeat of what it had is not late
    ledger = builder.ledger()
    assert told(ledger) == dict.fromkeys(range(3), "delivered")
    assert {seq: marks - {"before-consumer"} for seq, marks in marked(ledger).items()} == {
        0: {"recovered"}, 1: {"recovered"}, 2: set(),
    }  # fmt: skip
    (recovered,) = (entry for entry in ledger.marks if entry.name == "recovered")
    assert recovered.delay == pytest.approx((39, 50 - 0.22, 50), abs=0.3), (
        "from the acknowledgement: 28 and 50 ms"
    )


def test_early_and_by_how_much(builder):
    builder.sent(0, 10)
    builder.delivered(0, 13)
    builder.read(0, 20)
    builder.sent(1, 10)
    builder.delivered(1, 16)
    builder.read(1, 15)
    ledger = builder.ledger()
    assert marked(ledger) == {0: {"before-consumer"}}
    assert ledger.marks[0].delay == pytest.approx((7, 7, 7))


def test_duplicated_on_each_path(builder):
    builder.flow(0, 1, 2)
    builder.delivered(0, 20)
    builder.read(1, 21, offset=9)
    builder.read(2, 22, offset=2)  # the same record read again is no second one
    marks = marked(builder.ledger())
    assert {seq for seq in marks if "duplicated-live" in marks[seq]} == {0}
    assert {seq for seq in marks if "duplicated-log" in marks[seq]} == {1}


def test_reordered_on_each_path_and_only_within_a_source(builder):
    for seq, source, offset, delivered in ((0, 0, 1, 20), (1, 0, 0, 21), (2, 1, 2, 23), (3, 1, 3, 22)):
        builder.sent(seq, 10 + seq, source=source)
        builder.read(seq, 30 + offset, offset=offset)
        builder.delivered(seq, delivered)
    builder.rows["delivered", "redis"].sort(key=lambda row: row["at"])
    builder.rows["consumed", "kafka"].sort(key=lambda row: row["offset"])
    marks = marked(builder.ledger())
    assert {seq for seq in marks if "reordered-log" in marks[seq]} == {0}, "in the log after 1, sent before"
    assert {seq for seq in marks if "reordered-live" in marks[seq]} == {1, 2}


def test_two_partitions_of_a_source_have_no_order_between_them(builder):
    """Partitions were added: 1 is in a new one, which the consumer happens to read first."""
    for seq, partition, offset in ((0, 0, 7), (1, 3, 0), (2, 0, 9), (3, 0, 8)):
        builder.sent(seq, 10 + seq)
        builder.read(seq, 40 - seq, partition=partition, offset=offset)
        builder.delivered(seq, 20 + seq)
    builder.rows["consumed", "kafka"].sort(key=lambda row: (-row["partition"], row["offset"]))
    marks = marked(builder.ledger())
    assert {seq for seq in marks if "reordered-log" in marks[seq]} == {2}, "3 was sent later, and is before"
    assert {seq for seq in marks if "reordered-live" in marks[seq]} == {3}


def test_two_publishers_have_no_order_between_them(builder):
    for seq, writer, offset in ((0, "w0", 1), (1, "w1", 0)):
        builder.sent(seq, 10 + seq, writer=writer)
        builder.read(seq, 30, offset=offset)
        builder.delivered(seq, 20 - seq)
    builder.rows["delivered", "redis"].sort(key=lambda row: row["at"])
    assert all("reordered-log" not in marks for marks in marked(builder.ledger()).values())


def test_a_subscriber_to_one_source_is_asked_only_for_it(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(0, 5000, sources=[1])
    for seq, source in ((0, 0), (1, 1), (2, 1)):
        builder.sent(seq, 10 + seq, source=source)
        builder.read(seq, 20 + seq)
    builder.delivered(2, 15)
    found = told(builder.ledger())
    assert found == {0: "undelivered: no subscriber", 1: "undelivered: unexplained", 2: "delivered"}


def test_a_connection_for_some_sources_is_asked_for_each(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(0, 5000, sources=[2, 0])
    for seq in range(4):
        builder.sent(seq, 10 + seq, source=seq)
        builder.read(seq, 20 + seq)
    builder.delivered(0, 15)
    found = told(builder.ledger())
    assert found == {
        0: "delivered", 1: "undelivered: no subscriber", 2: "undelivered: unexplained",
        3: "undelivered: no subscriber",
    }  # fmt: skip


def test_what_a_gateway_repaired_is_late_and_not_delivered_by_redis(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    builder.listened(0, 5000)
    builder.sent(0, 10)
    builder.read(0, 15)
    builder.given_up(0, 12)
    builder.caught(0, 500, repair=True)
    ledger = builder.ledger()
    assert told(ledger) == {0: "delivered"}
    assert marked(ledger) == {0: {"recovered"}}


def test_missing_rows_of_what_a_gateway_gave_later_are_told(builder):
    builder.flow(0)
    builder.interval(80, 180, writer="worker0", counters={"caught_up": 3})
    assert "3 of 3 caught_up rows are missing" in builder.ledger().problems


def test_subscribers_of_two_processes_with_one_number_are_two(tmp_path):
    builder = RunBuilder(tmp_path / "run")
    for writer in ("worker0", "worker1"):
        builder.listened(0, 5000, writer=writer)
    builder.sent(0, 10)
    builder.read(0, 15)
    builder.delivered(0, 13, writer="worker0")
    assert told(builder.ledger()) == {0: "undelivered: unexplained"}


def test_a_story_tells_everything_in_order(tmp_path):
    builder = RunBuilder(tmp_path / "run", faults=[("redis.kill", 90, 190)])
    builder.listened(0, 5000)
    builder.listened(0, 100, Ending.LOST, who=1)
    builder.listened(200, 5000, who=1)
    builder.flow(0, at=150)
    story = builder.ledger().entry(IDS.of(0))
    gone = "subscriber 1 of redis lost its connection 50.0 ms before it was sent"
    assert (story.name, story.cause, story.due) == ("delivered", "", pytest.approx(0.150))
    assert [(moment.at, moment.text) for moment in story.moments] == [
        (0.0, "sent, 300 bytes"),
        (2.0, "acknowledged by Kafka, as its caller saw it"),
        (3.0, "delivered to subscriber 0 of redis"),
        (5.0, "read by the Kafka consumer: partition 0, offset 0"),
        (None, f"{gone}, and was back 50.0 ms after it"),
        (None, "fault redis.kill was on, from -60 ms to +40 ms"),
    ]
    assert json.loads(json.dumps(story.as_dict()))["class"] == "delivered"


def test_the_story_of_an_event_without_a_row_of_publishing(builder):
    builder.delivered(5, 30)
    story = builder.ledger().entry(IDS.of(5))
    assert (story.name, story.due) == ("orphan", None)
    assert story.moments[0].at == pytest.approx(30)


def test_ids_of_other_runs_are_refused(builder):
    builder.flow(0)
    ledger = builder.ledger()
    for event_id, message in (("x", "is not an id of this run"), (IDS.of(99), "no row names it")):
        with pytest.raises(EventError, match=message):
            ledger.entry(event_id)
    with pytest.raises(EventError, match="there is no class 'gone'"):
        ledger.ids("gone")


def test_every_name_is_explained_and_unique():
    names = [name for name, _ in (*CLASSES.values(), *MARKS.values())]
    assert len(set(names)) == len(names)
    assert len(set(CAUSES.values())) == len(CAUSES)


def test_it_is_json(builder):
    builder.flow(0, 1)
    ledger = builder.ledger()
    value = json.loads(json.dumps(ledger.as_dict()))
    assert value["classes"][0]["count"] == 2
    assert Ledger.of(builder.path).as_dict() == ledger.as_dict(), "from the directory alone"
