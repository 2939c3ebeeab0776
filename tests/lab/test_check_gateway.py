"""The handover checker: its judge, against histories by hand and by chance; and all, on the real stack."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from aiohttp import web
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.soak import WRONG_GATEWAYS, wrong_gateway
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.lab.gateway_check import Plan, check_gateway
from dualstream_lab.lab.gateway_check.history import (
    EVENT,
    NOWHERE,
    OLD,
    RECOVERED,
    REFUSED,
    STATE,
    SUBSCRIBED,
    Logs,
    PartitionSession,
    Session,
    SourceLog,
    by_partition,
)
from dualstream_lab.lab.gateway_check.judge import Judgement, Wrong, judge, judge_all
from dualstream_lab.lab.gateway_check.serving import serving, url_of
from dualstream_lab.lab.gateway_check.verdict import Record, Verdict
from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.ports import free_ports
from dualstream_lab.stack.valkey import find_redis, redis_process
from tests.kafka_log.hostile import consumer, grow

# --- the judge, by hand: event n is at offset 10 n, and of publisher n % 2


def log_of(*events: int) -> SourceLog:
    return SourceLog(0, [(10 * event, event, event % 2, 0.0) for event in events])


class Told(PartitionSession):
    """A connection's messages, one a second."""

    def __init__(self, since: int | None = None) -> None:
        super().__init__(since, 0.0)

    def say(self, kind: int, event: int = -1, cursor: int = NOWHERE, place: int | None = None) -> Told:
        if place is None:
            place = 10 * event if event >= 0 else NOWHERE
        self.record(kind, event, place, cursor, float(len(self.kinds)))
        return self

    def record(self, kind: int, event: int, offset: int, cursor: int, at: float) -> None:
        self.kinds.append(kind)
        self.events.append(event)
        self.offsets.append(offset)
        self.cursors.append(cursor)
        self.times.append(at)

    def subscribed(self, cursor: int) -> Told:
        return self.say(SUBSCRIBED, cursor=cursor)

    def not_recovered(self, cursor: int) -> Told:
        self.refused.append("store_lag")
        return self.say(REFUSED, cursor=cursor)

    def live(self, *events: int, cursor: int = NOWHERE) -> Told:
        for event in events:
            self.say(EVENT, event, cursor)
        return self

    def old(self, *events: int) -> Told:
        for event in events:
            self.say(OLD, event, 10 * event)
        return self

    def late(self, *events: int) -> Told:
        for event in events:
            self.say(RECOVERED, event)
        return self

    def sync(self, cursor: int) -> Told:
        return self.say(STATE, cursor=cursor)


ALL = range(1, 7)


def judged(*stays: PartitionSession, log: SourceLog | None = None, settled: bool = True) -> Judgement:
    return judge(log or log_of(*ALL), stays, settled=settled)


def found(judgement: Judgement) -> list[tuple[Wrong, int]]:
    return [(one.wrong, one.event) for one in judgement.findings]


def test_a_right_history_is_right():
    one = Told().subscribed(20).live(3, 4, cursor=20).sync(30)
    two = Told(30).old(4, 5).subscribed(50).live(6, cursor=50).sync(60)
    judgement = judged(one, two)
    assert found(judgement) == []
    assert (judgement.delivered, judgement.old, judgement.repeated, judgement.crossed) == (5, 2, 1, 0)


def test_nothing_is_owed_before_the_first_cursor_and_all_of_it_from_the_beginning():
    assert found(judged(Told().subscribed(60))) == []
    assert found(judged(Told(-1).old(2, 3, 4, 5, 6).subscribed(60))) == [(Wrong.GAP, 1)]


def test_a_gap_of_one_that_stayed_with_or_without_a_cursor_that_covers_it():
    assert found(judged(Told().subscribed(30).live(4, 6).sync(60))) == [(Wrong.GAP, 5)]
    assert found(judged(Told().subscribed(30).live(4))) == [(Wrong.GAP, 5), (Wrong.GAP, 6)]


def test_who_left_before_the_end_is_owed_only_what_its_cursors_cover():
    judgement = judged(Told().subscribed(30).live(5).sync(40), settled=False)
    assert found(judgement) == [(Wrong.GAP, 4)]
    assert judgement.unsettled == 1


def test_a_resume_that_skips_an_event_is_a_gap():
    assert found(judged(Told().subscribed(10).live(2).sync(20), Told(20).old(4, 5, 6).subscribed(60))) == [
        (Wrong.GAP, 3)
    ]


def test_a_cursor_that_loses_what_was_not_told_yet():
    cut = Told().subscribed(30).live(5, cursor=50)
    assert found(judged(cut, Told(50).subscribed(50).live(6))) == [(Wrong.CURSOR, 4)]
    stayed = Told().subscribed(30).live(5, cursor=50).live(6, cursor=50)
    assert found(judged(stayed, Told(50).subscribed(60))) == [(Wrong.GAP, 4)], "it had a second for it"


def test_a_cursor_before_its_event_although_nothing_was_lost():
    one = Told().subscribed(30).live(5, cursor=50).live(4, cursor=50).live(6)
    assert found(judged(one)) == [(Wrong.AHEAD, 4)]
    two = Told().subscribed(30).live(5, cursor=50)
    assert found(judged(two, Told(50).late(4).subscribed(50).live(6))) == [(Wrong.AHEAD, 4)]


def test_what_the_gateway_cannot_tell_and_says_so_is_no_gap():
    judgement = judged(Told().subscribed(20), Told(20).not_recovered(50).live(6))
    assert found(judgement) == []
    assert (judgement.declared, judgement.refusals) == (3, Counter(store_lag=1))


def test_what_is_said_to_be_lost_in_the_midst_of_a_connection_lies_before_the_next_cursor():
    judgement = judged(Told().subscribed(20).not_recovered(20).say(RECOVERED, 5, 50).live(6))
    assert found(judgement) == []
    assert judgement.declared == 2
    judgement = judged(Told().subscribed(20).not_recovered(20).say(RECOVERED, 4, 40).sync(60))
    assert found(judgement) == [(Wrong.GAP, 5), (Wrong.GAP, 6)], "and no further"


def test_duplicates_on_one_connection_but_not_over_a_resume_nor_of_what_the_log_has_twice():
    assert found(judged(Told().subscribed(50).live(6, 6))) == [(Wrong.DUPLICATE, 6)]
    assert judged(Told().subscribed(50).live(6), Told(50).old(6).subscribed(60)).repeated == 1
    twice = SourceLog(0, [(10, 1, 0, 0.0), (20, 1, 0, 0.0)])
    again = Told(0).say(EVENT, 1, place=10).say(EVENT, 1, place=20)
    assert found(judged(again, log=twice)) == []


def test_inversions_of_one_publisher_and_of_the_past_but_not_of_two_publishers_nor_of_repairs():
    assert found(judged(Told().subscribed(20).live(5, 3, 4, 6))) == [(Wrong.INVERTED, 3)]
    assert found(judged(Told(20).old(4, 3).subscribed(40).live(5, 6))) == [
        (Wrong.INVERTED, 3),
        (Wrong.AHEAD, 3),
    ]
    crossed = judged(Told().subscribed(30).live(5, 4, 6))
    assert (found(crossed), crossed.crossed) == ([], 1)
    assert found(judged(Told().subscribed(20).live(5).late(3, 4).live(6))) == []


def test_what_is_not_in_the_log_or_elsewhere():
    assert found(judged(Told().subscribed(60).live(9))) == [(Wrong.UNKNOWN, 9)]
    assert found(judged(Told().subscribed(50).say(EVENT, 6, place=61))) == [(Wrong.UNKNOWN, 6)]


def session_of(stay: PartitionSession, *, partition: int = 0) -> Session:
    """As the client records what concerns one partition."""
    session = Session(None if stay.since is None else {partition: stay.since}, 0.0)
    for kind, event, place, cursor, at in zip(
        stay.kinds, stay.events, stay.offsets, stay.cursors, stay.times, strict=True
    ):
        position = None if place == NOWHERE else (partition, place)
        named = None if cursor == NOWHERE else {partition: cursor}
        session.add(kind, event=event, position=position, cursor=named, at=at)
    session.ended, session.refused = stay.ended, stay.refused
    return session


def test_a_verdict_sums_up_and_tells_what_happened_around():
    truth = Logs({"repo:a/b": {0: log_of(*ALL)}}, [f"id-{n}" for n in range(7)])
    stays = [Told().subscribed(30).live(4, 6).sync(60).sync(60), Told(60).subscribed(60)]
    stays[0].ended = "aborted"
    sessions = [session_of(stay) for stay in stays]
    verdict = Verdict.of(truth, [Record(7, "ws", "repo:a/b", sessions, True)], began=0.0, wall=0.0)
    assert not verdict.held
    assert verdict.wrong == Counter({Wrong.GAP: 1})
    text = verdict.examples[0].text
    for part in (
        "client 7 (ws)",
        "repo:a/b",
        "id-5",
        "0:50",
        "live 60",
        "state [60]",
        "aborted",
        "cursor 60",
    ):
        assert part in text
    assert json.loads(json.dumps(verdict.as_dict()))["wrong"]["gaps"] == 1


# --- the judge, by chance, against what it means, spelled out slowly


def slowly(
    rows: list[tuple[int, int, int, float]], stays: list[PartitionSession], settled: bool
) -> Counter[str]:
    """Every class counted from its definition, over the one line of all that happened."""
    rows = sorted(rows)
    first = {event: offset for offset, event, _, _ in reversed(rows)}
    writer = {event: who for _, event, who, _ in reversed(rows)}
    line = []  # (stay, row, kind, event, place, cursor, time); kind None: a resume
    for number, stay in enumerate(stays):
        if stay.since is not None:
            line.append((number, -1, None, -1, NOWHERE, stay.since, 0.0))
        for row in range(len(stay.kinds)):
            columns = (stay.kinds, stay.events, stay.offsets, stay.cursors, stay.times)
            line.append((number, row, *(column[row] for column in columns)))
    counts: Counter[str] = Counter()
    bases = [at for at, one in enumerate(line) if one[5] != NOWHERE]
    told_at: dict[int, int] = {}
    for at, one in enumerate(line):
        if one[3] in first:
            told_at.setdefault(one[3], at)
    for base in bases[:1]:
        for event, offset in first.items():
            if offset > line[base][5]:
                cover = _cover(line, base, offset)
                counts[_fate(line, stays, offset, told_at.get(event), cover, settled)] += 1
    counts += _as_they_came(line, first, writer, Counter(event for _, event, _, _ in rows))
    return +Counter({name: count for name, count in counts.items() if name})


def _cover(line, base, offset) -> tuple[int, bool] | None:
    """When a cursor first covered it, and whether that was to say that it is not told."""
    for at in range(base + 1, len(line)):
        cursor = line[at][5]
        if cursor >= offset:
            return at, line[at][2] == REFUSED or _excused(line, base, at)
    return None


def _excused(line, base, at) -> bool:
    """Whether the last news before this cursor was, on this connection, that something is lost."""
    for before in range(at - 1, base, -1):
        highest = max(one[5] for one in line[base:before])
        here = line[before][0] == line[at][0]
        if line[before][5] > highest or not here:
            return False
        if line[before][2] == REFUSED:
            stay = [one for one in line[:before] if one[0] == line[at][0]]
            joined = any(one[2] in {SUBSCRIBED, REFUSED} for one in stay)
            return joined or line[before][5] == NOWHERE
    return False


def _fate(line, stays, offset, told, cover, settled) -> str:
    if told is not None and (cover is None or told <= cover[0]):
        return ""
    if cover is not None and cover[1]:
        return "" if told is not None else "declared"
    if told is not None:
        return Wrong.AHEAD
    if cover is None:
        return Wrong.GAP if settled else "unsettled"
    number, row = line[cover[0]][:2]
    resumed = any(one[2] is None and one[5] >= offset for one in line[cover[0] :])
    stayed = row >= 0 and stays[number].times[-1] - stays[number].times[row] >= 1
    return Wrong.CURSOR if resumed and not stayed else Wrong.GAP


def _as_they_came(line, first, writer, copies) -> Counter[str]:
    counts: Counter[str] = Counter()
    for at, (number, _, kind, event, place, _, _) in enumerate(line):
        if event < 0:
            continue
        before = [one for one in line[:at] if one[0] == number and one[3] >= 0]
        again = sum(one[3] == event for one in before)
        misplaced = place not in {NOWHERE, first.get(event)} and copies[event] < 2
        counts[Wrong.UNKNOWN] += event not in first or misplaced
        if event not in first:
            continue
        if again:
            counts[Wrong.DUPLICATE] += again >= copies[event]
            continue
        counts["repeated"] += any(one[3] == event for one in line[:at])
        ordered = [
            one
            for place, one in enumerate(before)
            if one[2] in {EVENT, OLD}
            and one[3] in first
            and one[3] not in {other[3] for other in before[:place]}
            and first[one[3]] > first[event]
        ]
        if kind in {EVENT, OLD} and ordered:
            same = any(writer[one[3]] == writer[event] or (one[2] == kind == OLD) for one in ordered)
            counts[Wrong.INVERTED if same else "crossed"] += 1
    return counts


@st.composite
def histories(draw):
    count = draw(st.integers(1, 6))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 20), st.integers(0, count), st.integers(0, 1), st.just(0.0)),
            max_size=8,
            unique_by=lambda row: row[0],
        )
    )
    cursors = st.one_of(st.just(NOWHERE), st.integers(-1, 21))
    stays = []
    for _ in range(draw(st.integers(1, 4))):
        stay = Told(draw(st.one_of(st.none(), st.integers(-1, 21))))
        at = 0.0
        for _ in range(draw(st.integers(0, 7))):
            kind = draw(st.integers(EVENT, STATE))
            at += draw(st.sampled_from([0.0, 0.6, 1.5]))
            event = draw(st.integers(0, count + 1)) if kind <= OLD else -1
            place = draw(st.one_of(st.just(NOWHERE), st.integers(0, 20))) if kind <= OLD else NOWHERE
            stay.record(kind, event, place, draw(cursors), at)
        stays.append(stay)
    return rows, stays, draw(st.booleans())


# --- sources in several partitions


def grown() -> dict[int, SourceLog]:
    """Events 1 to 3 in partition 0, and then 4 to 6 in partition 9, at 10 times their number."""
    rows = [(0 if event < 4 else 9, 10 * event, event, 0, float(event)) for event in ALL]
    return by_partition(rows)


def judged_all(*sessions: Session, logs: dict[int, SourceLog] | None = None) -> Counter[str]:
    counts: Counter[str] = Counter()
    for log, _, found in judge_all(logs or grown(), sessions, settled=True):
        counts.update(f"{one.wrong.value} {one.event} in {log.partition}" for one in found.findings)
        counts.update({name: getattr(found, name) for name in ("repeated", "declared", "crossed")})
        counts.update(found.refusals)
    return +counts


class Spoken(Session):
    """A connection's messages, one a second; events are where :func:`grown` has them."""

    def say(self, kind: int, event: int = -1, cursor: dict[int, int] | None = None, at=None) -> Spoken:
        if event >= 0 and at is None:
            at = (0 if event < 4 else 9, 10 * event)
        self.add(kind, event=event, position=at, cursor=cursor, at=float(len(self.kinds)))
        return self

    def live(self, *events: int, cursor: dict[int, int] | None = None) -> Spoken:
        for event in events:
            self.say(EVENT, event, cursor)
        return self


def spoken(since: dict[int, int] | None = None) -> Spoken:
    return Spoken(since, 0.0)


def test_a_source_in_two_partitions_has_no_order_between_them():
    told = spoken().say(SUBSCRIBED, cursor={0: 0}).live(4, 1, 5, 2).say(STATE, cursor={0: 20, 9: 50})
    assert judged_all(told.live(3, 6)) == {}
    assert judged_all(spoken().say(SUBSCRIBED, cursor={0: 0}).live(1, 3, 2, 4, 6, 5)) == {
        "inversions 2 in 0": 1,
        "inversions 5 in 9": 1,
    }


def test_what_is_missing_in_a_partition_that_was_added_is_a_gap():
    assert judged_all(spoken().say(SUBSCRIBED, cursor={0: 0}).live(1, 2, 3)) == {
        f"gaps {event} in 9": 1 for event in (4, 5, 6)
    }
    known = spoken().say(SUBSCRIBED, cursor={0: 0, 9: 50})
    assert judged_all(known.live(1, 2, 3, 6)) == {}, "what is before the first cursor is not owed"
    ahead = spoken().say(SUBSCRIBED, cursor={0: 30, 9: 30}).say(STATE, cursor={0: 30, 9: 60})
    assert judged_all(ahead, spoken({0: 30, 9: 60}).say(SUBSCRIBED, cursor={0: 30, 9: 60})) == {
        f"lost_by_cursor {event} in 9": 1 for event in (4, 5, 6)
    }


def test_a_resume_with_a_cursor_that_names_one_partition_is_owed_all_of_the_other():
    first = spoken().say(SUBSCRIBED, cursor={0: 0}).live(1, 4)
    second = spoken({0: 10}).say(OLD, 2, {0: 20}).say(OLD, 3, {0: 30}).say(OLD, 4, {0: 30, 9: 40})
    assert judged_all(first, second.live(5, 6)) == {"repeated": 1}
    lost = spoken({0: 10}).live(2, 3).say(SUBSCRIBED, cursor={0: 30, 9: 60})
    assert judged_all(first, lost) == {f"gaps {event} in 9": 1 for event in (5, 6)}


def test_an_event_told_in_another_partition_or_nowhere_in_the_log_is_unknown():
    begun = spoken().say(SUBSCRIBED, cursor={0: 0}).live(1, 2, 3, 4, 5)
    assert judged_all(begun.say(EVENT, 6, at=(0, 60))) == {"unknown 6 in 9": 1}
    begun = spoken().say(SUBSCRIBED, cursor={0: 30, 9: 60})
    assert judged_all(begun.say(EVENT, 7, at=(3, 70))) == {"unknown 7 in 3": 1}


def test_what_was_refused_was_refused_once():
    refused = spoken({0: 10}).say(REFUSED, cursor={0: 30, 9: 50})
    refused.refused.append("retention")
    assert judged_all(refused.live(6)) == {"retention": 1, "declared": 4}


def test_an_event_that_was_written_again_after_growth_is_its_first_record():
    rows = [(0, 10, 1, 0, 1.0), (9, 5, 1, 0, 2.0), (9, 6, 2, 0, 3.0)]
    logs = by_partition(rows)
    assert {p: list(log.events) for p, log in logs.items()} == {0: [1], 9: [2]}
    told = spoken().say(SUBSCRIBED, cursor={0: 0}).say(EVENT, 1, at=(0, 10)).say(EVENT, 1, at=(9, 5))
    assert judged_all(told.say(EVENT, 2, at=(9, 6)), logs=logs) == {}


@given(histories())
def test_a_partition_of_a_session_is_as_if_it_were_alone(history):
    """Whatever a second partition adds: what is told of the first one is judged as before."""
    rows, stays, settled = history
    logs = {3: SourceLog(3, rows), 7: SourceLog(7, [(5, 99, 0, 0.0)])}
    sessions = [session_of(stay, partition=3) for stay in stays]
    sessions[-1].add(EVENT, event=99, position=(7, 5), at=sessions[-1].times[-1] if stays[-1].times else 0.0)
    found = {log.partition: one for log, _, one in judge_all(logs, sessions, settled=settled)}
    alone = judge(logs[3], stays, settled=settled)
    assert found[3].findings == alone.findings
    names = ("delivered", "old", "recovered", "declared", "repeated", "crossed", "unsettled")
    assert [getattr(found[3], name) for name in names] == [getattr(alone, name) for name in names]


@given(histories())
def test_the_judge_says_what_the_definitions_say(history):
    rows, stays, settled = history
    judgement = judge(SourceLog(0, rows), stays, settled=settled)
    said = Counter(one.wrong.value for one in judgement.findings)
    said.update({name: getattr(judgement, name) for name in ("declared", "unsettled", "repeated", "crossed")})
    assert +said == slowly(rows, stays, settled)


# --- on the real stack

QUICK = Plan(clients=60, sources=6, rate=1500, seconds=3)


@pytest.fixture
async def gateway(settings: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[str]:
    async with serving(settings(), tmp_path) as served:
        yield url_of(served)


@pytest.mark.parametrize("trouble", [False, True], ids=["quiet", "redis-killed"])
async def test_a_right_gateway_passes(
    trouble: bool, gateway: str, stack: LocalStack, settings: Callable[..., Settings]
) -> None:
    async def kill_redis() -> None:
        await asyncio.sleep(1)
        stack.redis.kill()
        await asyncio.sleep(1)
        await asyncio.to_thread(stack.redis.start)

    check = await check_gateway(gateway, settings(), QUICK, disturb=kill_redis if trouble else None)
    verdict = check.verdict
    assert check.held, verdict.as_dict()
    assert (check.state, check.away, verdict.declared, verdict.unsettled) == ("finished", 0, 0, 0)
    assert verdict.events > 100  # what it publishes is no matter here: a busy machine does less
    assert verdict.delivered > verdict.events
    assert all(check.ends[how] for how in ("politely", "aborted", "in mid-frame"))
    assert verdict.old
    assert verdict.recovered or not trouble, "what Redis lost was found by looking"


async def test_partitions_that_are_added_meanwhile_lose_nothing(
    gateway: str, stack: LocalStack, topic: str, settings: Callable[..., Settings]
) -> None:
    async def grow_it() -> None:
        await asyncio.sleep(0.7)
        await grow(stack.kafka_url, topic, 11)
        await asyncio.sleep(1.2)
        await grow(stack.kafka_url, topic, 17)

    plan = Plan(clients=60, sources=6, rate=1500, seconds=4)
    check = await check_gateway(gateway, settings(refresh_interval=0.2), plan, disturb=grow_it)
    verdict = check.verdict
    assert check.held, verdict.as_dict()
    assert (check.state, check.away, verdict.unsettled) == ("finished", 0, 0)
    assert max(await written_to(stack.kafka_url, topic)) >= 6


async def written_to(url: str, topic: str) -> set[int]:
    """The partitions that have records."""
    async with consumer(url) as asking:
        asking.assign(targets := [TopicPartition(topic, partition) for partition in range(17)])
        ends = await asking.end_offsets(targets)
    return {target.partition for target, end in ends.items() if end}


@pytest.mark.parametrize("name", WRONG_GATEWAYS)
async def test_the_classic_wrong_orders_are_caught(
    name: str,
    gateway: str,
    stack: LocalStack,
    settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dualstream_lab.lab.gateway_check.check._SURE", 1.0)
    async with wrong_gateway(name, gateway, stack.redis_url) as url:
        check = await check_gateway(url, settings(), QUICK)
    wrong = check.verdict.wrong
    assert not check.held
    assert wrong[Wrong.GAP] + wrong[Wrong.CURSOR] > 0
    assert wrong[Wrong.DUPLICATE] == wrong[Wrong.UNKNOWN] == len(check.garbled) == 0, "it is wrong in one way"
    lost = next(one for one in check.verdict.examples if one.wrong in {Wrong.GAP, Wrong.CURSOR})
    assert "subscribed" in lost.around


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dualstream_lab.lab.gateway_check.probe._STRANGER", 1.5)


@asynccontextmanager
async def some_server(handler: Callable[[web.Request], object]) -> AsyncIterator[str]:
    """Not a gateway."""
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def nothing_here(request: web.Request) -> web.Response:
    raise web.HTTPNotFound


async def chatter(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(f"you said {message.data}")
    return socket


async def test_where_no_gateway_is(settings: Callable[..., Settings]) -> None:
    where = settings()
    for url in ("ftp://x", "127.0.0.1:8080", "http://user:secret@127.0.0.1:80"):
        with pytest.raises(ConfigError, match="url"):
            await check_gateway(url, where, QUICK)
    async with some_server(nothing_here) as url:
        for via in ("ws", "sse"):
            with pytest.raises(ConfigError, match="no gateway is there"):
                await check_gateway(url, where, Plan(via=via))
    async with some_server(chatter) as url:
        with pytest.raises(ConfigError, match="does not speak"):
            await check_gateway(url, where, QUICK)
    (port,) = free_ports(1)
    with pytest.raises(StreamUnavailable, match=f"127.0.0.1:{port} could not be reached"):
        await check_gateway(f"http://127.0.0.1:{port}", where, QUICK)


@pytest.mark.usefixtures("_impatient")
async def test_brokers_that_are_not_the_gateways(
    gateway: str, stack: LocalStack, topic: str, settings: Callable[..., Settings]
) -> None:
    (nobody,) = free_ports(1)
    stack.create_topic(f"{topic}-other")
    nowhere = {"kafka_url": f"127.0.0.1:{nobody}", "start_timeout": 1}
    for values, kind, says in (
        ({"topic": f"{topic}-none"}, ConfigError, "does not exist"),
        (nowhere, StreamUnavailable, "could not be reached"),
        ({"topic": f"{topic}-other"}, ConfigError, "cursors are of log"),
        ({"redis_url": f"redis://127.0.0.1:{nobody}"}, StreamUnavailable, "Redis takes no notifications"),
    ):
        with pytest.raises(kind, match=says):
            await check_gateway(gateway, settings(**values), QUICK)
    with pytest.raises(ConfigError, match="redis_url"):
        await check_gateway(gateway, settings().model_copy(update={"redis_url": None}), QUICK)


@pytest.mark.usefixtures("_impatient")
async def test_another_redis_than_the_gateways(
    gateway: str, settings: Callable[..., Settings], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    other = redis_process(find_redis(), port=port, directory=tmp_path / "other", remove=None)
    await asyncio.to_thread(other.start)
    try:
        with pytest.raises(ConfigError, match="nobody receives on this Redis"):
            await check_gateway(gateway, settings(redis_url=f"redis://127.0.0.1:{port}"), QUICK)
    finally:
        other.kill()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"clients": 0}, "clients: must be from 1 to 5,000"),
        ({"rate": 1e9}, "rate: must be"),
        ({"via": "pigeon"}, "via: must be one of ws, sse, both"),
        ({"seconds": 600, "rate": 50_000}, "at most 20,000,000 are recorded"),
    ],
)
def test_a_plan_that_cannot_be(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Plan(**values)  # type: ignore[arg-type]


# --- the command


def cli(*arguments: str, code: int) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "dualstream_lab.cli", "check-gateway", *arguments],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_the_command_checks_a_stack_of_its_own_through_a_fault(tmp_path: Path) -> None:
    files = {name: tmp_path / f"verdict.{name}" for name in ("json", "junit")}
    out, err = cli(
        *("--seconds", "4", "--clients", "40", "--rate", "1000", "--fault", "redis.kill"),
        *("--fault", "gateway.kill"),
        *(word for name, file in files.items() for word in (f"--{name}", str(file))),
        code=0,
    )
    assert "Nothing was lost" in out
    assert "redis.kill bites" in err
    assert "redis.kill is over" in err
    assert "gateway.kill is over" in err
    verdict = json.loads(files["json"].read_text())
    assert verdict["held"]
    assert verdict["wrong"] == dict.fromkeys(map(str, Wrong), 0)
    suite = ET.parse(files["junit"]).getroot()
    assert {case.get("name") for case in suite.iter("testcase")} >= {"gaps", "duplicates", "garbled"}
    assert not list(suite.iter("failure"))


async def test_ctrl_c_judges_what_was_seen(
    gateway: str, stack: LocalStack, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "verdict.json"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dualstream_lab.cli", "check-gateway", gateway, "--clients", "30"),
        *("--seconds", "60", "--rate", "500", "--json", str(file), "--use-env", "--yes"),
        env=os.environ | stack.environment() | {"DUALSTREAM_TOPIC": topic},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    while "checking" not in (said := (await process.stderr.readline()).decode()):
        assert said
    await asyncio.sleep(2.5)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode == 130, (out, err)
    assert b"interrupted: what was told until then was judged" in err
    assert b"Traceback" not in err
    verdict = json.loads(file.read_text())
    assert verdict["state"] == "interrupted"
    assert verdict["held"]
    assert verdict["delivered"]["all"] > 500


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["http://127.0.0.1:9", "--fault", "redis.kill"], 2, "leave URL out"),
        (["--fault", "redis.sulk"], 2, "must be one of"),
        (["--topic", "x"], 2, "--topic without URL"),
        (["--junit", "no/such/directory/x.xml"], 2, "cannot be written"),
        (["--use-env"], 2, "--use-env without URL"),
        (["http://127.0.0.1:9", "--kafka", "127.0.0.1:9", "--redis", "redis://h"], 2, "give --yes"),
        (
            ["http://127.0.0.1:9", "--kafka", "127.0.0.1:9", "--redis", "redis://h", "--yes"],
            3,
            "could not be reached",
        ),
    ],
)
def test_mistakes_are_told_with_their_exit_codes(
    dualstream: Callable[..., tuple[int, str, str]], arguments: list[str], code: int, says: str
) -> None:
    returned, output, errors = dualstream("check-gateway", *arguments)
    assert (returned, output) == (code, "")
    assert says in errors
