"""The publisher's pure parts: the buffer's bound and fairness, deadlines, receipts, routes."""

from __future__ import annotations

import json

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.config import Settings
from dualstream_lab.event import decode_notification
from dualstream_lab.publisher import BatchReceipt
from dualstream_lab.publisher.buffer import Buffer, Deadlines
from dualstream_lab.publisher.call import PartitionSlice
from dualstream_lab.publisher.core import publish_commands
from dualstream_lab.publisher.route import Route
from dualstream_lab.publisher.routes import Routes

sizes = st.tuples(st.integers(1, 10), st.integers(0, 100))
actions = st.lists(st.one_of(sizes, st.sampled_from(["release", "withdraw"])), max_size=60)


@given(actions, st.randoms(use_true_random=False))
def test_the_buffer_keeps_its_bound_and_nobody_overtakes(steps, random):
    buffer = Buffer[int](max_events=10, max_bytes=100)
    held: dict[int, tuple[int, int]] = {}
    line: list[tuple[int, tuple[int, int]]] = []

    def let_in(tickets: list[int]) -> None:
        for ticket in tickets:
            first, size = line.pop(0)
            assert ticket == first, "first come, first served"
            held[ticket] = size

    for ticket, step in enumerate(steps):
        if step == "release":
            if held:
                let_in(buffer.release(*held.pop(random.choice(list(held)))))
        elif step == "withdraw":
            if line:
                leaving = line.pop(random.randrange(len(line)))[0]
                let_in(buffer.withdraw(leaving))
                assert leaving not in buffer.waiting
        elif buffer.reserve(*step):
            assert not line, "nobody overtakes"
            held[ticket] = step
        else:
            buffer.wait(ticket, *step)
            line.append((ticket, step))
        events, size = sum(h[0] for h in held.values()), sum(h[1] for h in held.values())
        assert (buffer.events, buffer.bytes, len(buffer.waiting)) == (events, size, len(line))
        assert events <= 10
        assert size <= 100
        if line:
            first = line[0][1]
            assert events + first[0] > 10 or size + first[1] > 100, "whoever fits is let in"


def test_what_can_never_fit_does_not_wait():
    buffer = Buffer[int](max_events=10, max_bytes=100)
    for too_much in ((11, 0), (1, 101)):
        assert not buffer.can_ever_hold(*too_much)
        with pytest.raises(ValueError, match="never fit"):
            buffer.wait(1, *too_much)


@given(st.lists(st.floats(0, 1), max_size=40), st.data())
def test_a_deadline_is_never_early_and_at_most_a_fiftieth_late(gaps, data):
    deadlines = Deadlines[int](5.0)
    now, added = 0.0, {}
    for item, gap in enumerate(gaps):
        now += gap
        added[item] = now
        bucket = deadlines.add(item, now)
        if data.draw(st.booleans()):
            bucket.pop(item)
            del added[item]
    while (when := deadlines.next_due()) is not None:
        for item in deadlines.due(when):
            assert 5.0 <= when - added.pop(item) <= 5.1 + 1e-9
    assert not added


def test_a_receipt_of_a_repeated_batch_has_no_offsets():
    receipt = BatchReceipt(["a", "b", "c"], [(3, -1, [0, 2])], {1: "bad"})
    assert list(receipt.partitions) == [3, -1, 3]
    assert list(receipt.offsets) == [-1, -1, -1]


@given(st.text())
def test_names_are_json_in_ascii(name):
    written = Route("repo", name, partition=0, channel="c", nonce="n").source_id_json
    assert written.isascii()
    assert json.loads(written) == name


def test_a_source_that_was_forgotten_counts_under_a_new_nonce(monkeypatch):
    monkeypatch.setattr("dualstream_lab.publisher.routes._MAX_ROUTES", 2)
    routes = Routes(Settings.load(), partitions=6)
    first = routes.route("repo", "a")
    assert routes.route("repo", "a") is first
    routes.route("repo", "b")
    routes.route("repo", "c")
    again = routes.route("repo", "a")
    assert again is not first
    assert again.nonce != first.nonce
    assert again.partition == first.partition


def test_a_source_keeps_its_count_when_partitions_are_added_and_has_the_partition_of_today(monkeypatch):
    routes = Routes(Settings.load(), partitions=6)
    known = [routes.route("repo", f"owner/r{number}") for number in range(40)]
    for route in known:
        route.count = 7
    before = [route.partition for route in known]
    generation = routes.generation
    for partitions in (9, 12):
        routes.resize(partitions)
    assert routes.generation is not generation
    again = [routes.route("repo", f"owner/r{number}") for number in range(40)]
    assert again == known
    assert {route.count for route in again} == {7}
    assert [route.partition for route in again] != before
    assert [route.partition for route in again] == [
        Routes(Settings.load(), partitions=12).route("repo", f"owner/r{number}").partition
        for number in range(40)
    ]
    monkeypatch.setattr("dualstream_lab.publisher.routes._MAX_ROUTES", 10)
    for partitions in (13, 14, 15):
        routes.resize(partitions)
        for number in range(40):
            routes.route("repo", f"other/r{partitions}-{number}")
        assert len(routes.routes) == 10
        assert len(routes._former) <= 10


@pytest.mark.parametrize(("base", "positions"), [(41, [(3, 41), (3, 42)]), (-1, [None, None])])
def test_a_notification_says_where_its_event_is_where_that_is_known_and_always_of_which_log(base, positions):
    routes = Routes(Settings.load(channel_prefix="x:"), partitions=6)
    part = PartitionSlice(["a", "b"], 3, 17)
    part.base, part.indices, part.types = base, [0, 1], ['"t"', '"t"']
    part.routes = [routes.route("repo", 'é"'), routes.route("repo", "b")]
    told = []
    for command in publish_commands(part, "0123456789ab", 17, details=True):
        reader = hiredis.Reader()
        reader.feed(command.encode())
        _, channel, message = reader.gets()
        told.append((channel.decode(), decode_notification(message)))
    assert [channel for channel, _ in told] == ['x:events:repo:é"', "x:events:repo:b"]
    assert [notification.position for _, notification in told] == positions
    assert [(n.id, n.type, n.source_id, n.log, n.ts) for _, n in told] == [
        ("a", "t", 'é"', "0123456789ab", 17),
        ("b", "t", "b", "0123456789ab", 17),
    ]
    assert [n.pub for _, n in told] == [f"{route.nonce}:1" for route in part.routes]
