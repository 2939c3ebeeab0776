"""The Subscriber against a fake gateway, which forces the moments that a real one has now and then."""

from __future__ import annotations

import asyncio
import json
import string
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import ConfigError, StreamUnavailable
from dualstream_lab.subscriber import Gap, Received, StreamGap, Subscriber
from dualstream_lab.subscriber.progress import Progress, Recent
from dualstream_lab.subscriber.wire import Dropped, SseParser, pause
from tests.fake_gateway import SOURCE, Talk, cursor, event, fake_gateway, subscribed, sync, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TRANSPORTS = ("ws", "sse")
both = pytest.mark.parametrize("transport", TRANSPORTS)


async def take(events: AsyncIterator[Received], count: int, timeout: float = 60) -> list[Received]:
    async with asyncio.timeout(timeout):
        return [await anext(events) for _ in range(count)]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def page(first: int, last: int, **more: Any) -> dict[str, Any]:
    events = [json.loads(whole(f"id-{n}")) for n in range(first, last + 1)]
    return {"events": events, "cursor": cursor(last), "more": False, "recovered": True} | more


def offsets(events: list[Received]) -> list[int]:
    return [int(one.id.removeprefix("id-")) for one in events]


# --- without a connection


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: a\n\n", [("message", "a", "")]),
        (b"data: a\r\n\r\ndata: b\r\rdata:c\n\n", [("message", x, "") for x in "abc"]),
        (b": hello\n\nevent: sync\nid: 7\ndata: a\ndata: b\n\n", [("sync", "a\nb", "7")]),
        (b"id: 7\ndata: a\n\ndata: b\n\n", [("message", "a", "7"), ("message", "b", "7")]),
        (b"data\n\nid: 1\n\n", [("message", "", "")]),  # no data: no event
        (b"id: 1\0\ndata:  a\n\n", [("message", " a", "")]),
        (b"\xef\xbb\xbfdata: \xc3\xa4\n\n", [("message", "ä", "")]),
        (b"retry: 10\nnonsense\ndata: cut off\n", []),
    ],
)
@given(cuts=st.sets(st.integers(0, 60)))
def test_server_sent_events_are_parsed_wherever_their_bytes_are_cut(
    text: bytes, events: list[Any], cuts: set[int]
) -> None:
    parser, found, before = SseParser(), [], 0
    for cut in [*sorted(cuts), len(text)]:
        found += parser.feed(text[before:cut])
        before = max(before, cut)
    assert found == events


@pytest.mark.parametrize("text", [b"data: " + b"x" * 100, b"data: 12345678\n" * 10])
def test_an_endless_server_sent_event_is_not_kept(text: bytes) -> None:
    with pytest.raises(Dropped, match="larger than 64"):
        SseParser(limit=64).feed(text)


def at(offset: int, epoch: str = "e", **others: int) -> Cursor:
    return Cursor.parse(cursor(offset, epoch=epoch, **others))


def test_an_id_is_a_repeat_for_as_long_as_it_may_be_told_again() -> None:
    progress = Progress(SOURCE, Recent(2))
    progress.restart(at(9))
    assert [progress.fresh(str(offset), (0, offset)) for offset in (10, 12, 11, 13)] == [True] * 4
    assert not progress.fresh("11", (0, 11))
    progress.confirm(at(11))
    assert len(progress) == 3  # 11 stands behind 12
    progress.confirm(at(8))  # never back
    assert progress.confirmed == at(11)
    assert not progress.fresh("10", (0, 10))  # confirmed, and among the recent ones
    progress.confirm(at(13))
    assert len(progress) == 0
    assert progress.fresh("late", (0, 5))  # an offset alone never says that it was told


def test_what_is_confirmed_grows_partition_by_partition() -> None:
    progress = Progress(SOURCE, Recent())
    progress.restart(at(9))
    assert progress.fresh("a", (0, 12))
    assert progress.fresh("b", (4, 3))  # the source is in a partition that was added
    assert progress.fresh("c", (4, 5))
    assert not progress.fresh("b", (0, 13))  # again, from its old one: the same event
    progress.confirm(at(9, p4=3))
    assert len(progress) == 2  # b is confirmed
    progress.confirm(at(12))  # says nothing of partition 4
    progress.confirm(at(5, p4=1))
    assert progress.confirmed == at(12, p4=3)
    assert len(progress) == 1


def test_two_sources_may_have_the_same_ids() -> None:
    recent = Recent()
    one, two = (Progress(f"repo:{name}", recent) for name in "ab")
    assert one.fresh("1", None)
    assert two.fresh("1", None)
    assert not one.fresh("1", (0, 7))


def test_what_is_remembered_of_a_source_is_bounded() -> None:
    recent = Recent(10)
    progress = Progress(SOURCE, recent, limit=100)
    progress.restart(at(-1))
    for offset in range(1000):
        assert progress.fresh(str(offset), (offset % 3, offset))
    assert (len(progress), len(recent)) == (100, 10)
    progress.restart(at(5, epoch="another"))
    assert (len(progress), len(recent)) == (0, 10)


@given(
    told=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=40),
    confirmed=st.lists(st.dictionaries(st.integers(0, 3), st.integers(-1, 20), min_size=1), max_size=6),
)
def test_whatever_is_confirmed_in_whatever_order_an_event_is_fresh_once(
    told: list[tuple[int, int]], confirmed: list[dict[int, int]]
) -> None:
    progress, seen, highest = Progress(SOURCE, Recent()), set(), dict[int, int]()
    cursors = iter(confirmed)
    for partition, offset in told:
        event_id = f"{partition}-{offset}"
        assert progress.fresh(event_id, (partition, offset)) == (event_id not in seen)
        seen.add(event_id)
        if (offsets := next(cursors, None)) is not None:
            progress.confirm(Cursor.of("e", offsets))
            for name, value in offsets.items():
                highest[name] = max(value, highest.get(name, value))
            assert progress.confirmed == Cursor.of("e", highest)
            assert Cursor.parse(str(progress.confirmed)) == progress.confirmed


def test_pauses_grow_and_spread_and_stay_bounded_for_ever() -> None:
    for failures, most in ((0, 0.1), (3, 0.8), (7, 10), (100_000, 10)):
        drawn = [pause(failures) for _ in range(1000)]
        assert 0 <= min(drawn) < most / 20
        assert most * 0.9 < max(drawn) <= most


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "redis://localhost"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://localhost:99999"}, "url"),
        ({"url": "http://me:secret@localhost"}, "token="),
        ({"source": None}, "source: name at least one"),
        ({"source": "octo"}, "repo:owner/name"),
        ({"source": "events:_resync"}, "reserved"),
        ({"source": "repo:*"}, "only printable"),
        ({"since": "yesterday"}, "'earliest' or 'latest'"),
        ({"sources": ["repo:a"], "since": cursor(3)}, "{source: cursor}"),
        ({"transport": "carrier pigeon"}, "ws, sse"),
        ({"silence": 0}, "silence"),
        ({"give_up": -1}, "give_up"),
    ],
)
def test_bad_arguments_are_refused_at_once(given: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"url": "http://localhost:8080", "source": SOURCE} | given
    with pytest.raises(ConfigError, match=says):
        Subscriber(arguments.pop("url"), **arguments)


# --- the stream


@both
async def test_the_simplest_use_gives_whole_events_in_order(transport: Any) -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9), event(11, 9, late=True), event(12, 9))
        await talk.stay()

    async with fake_gateway(script) as gateway:
        got = []
        async for received in Subscriber(gateway.url, source=SOURCE, transport=transport):
            got.append((received.id, received.type, received.data, received.late))
            if len(got) == 3:
                break
        assert got == [(f"id-{n}", "push", {"id": f"id-{n}"}, n == 11) for n in (10, 11, 12)]
        assert gateway.talks[0].since == {SOURCE: "latest"}
        assert sorted(gateway.asked) == [f"id-{n} 0:{n}" for n in (10, 11, 12)]


async def test_leaving_a_plain_loop_disconnects() -> None:
    left = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9))
        await talk.stay()
        left.set()

    async with fake_gateway(script) as gateway:
        async for _ in Subscriber(gateway.url, source=SOURCE):
            break
        await asyncio.wait_for(left.wait(), 30)


@both
async def test_after_a_drop_in_mid_message_it_resumes_with_its_cursor_and_removes_repeats(
    transport: Any,
) -> None:
    async def first(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9), event(12, 9), event(11, 9), sync(11), event(14, 11))
        await talk.half(event(13, 11))

    async def second(talk: Talk) -> None:
        past = (event(n, n, old=True) for n in (12, 13, 14, 15))
        await talk.say(*past, subscribed(15), event(16, 15))
        talk.drop()

    async def third(talk: Talk) -> None:
        await talk.say(event(16, 16, old=True), subscribed(16), event(17, 16))
        await talk.stay()

    async with (
        fake_gateway(first, second, third) as gateway,
        Subscriber(gateway.url, source=SOURCE, transport=transport, fetch=False) as events,
    ):
        got = await take(events, 8)
        assert offsets(got) == [10, 12, 11, 14, 13, 15, 16, 17]
        assert [one.old for one in got] == [False] * 4 + [True] * 2 + [False] * 2
        assert [talk.since[SOURCE] for talk in gateway.talks] == ["latest", cursor(11), cursor(15)]
        assert (events.stats.received, events.stats.repeats, events.stats.drops) == (8, 3, 2)


@both
async def test_several_sources_resume_each_from_its_own_cursor(transport: Any) -> None:
    names = ["repo:a/a", "repo:b/b", "repo:c/c"]

    async def first(talk: Talk) -> None:
        await talk.say(subscribed(5, source=names[0]), subscribed(7, source=names[1]))
        await talk.say(event(8, 7, source=names[1]), sync(8, source=names[1]))
        talk.drop()

    async def second(talk: Talk) -> None:
        await talk.say(*(subscribed(9, source=name) for name in names), event(10, 9, source=names[2]))
        await talk.stay()

    since = {names[0]: cursor(3), names[2]: "earliest"}
    async with (
        fake_gateway(first, second, sources=3) as gateway,
        Subscriber(gateway.url, sources=names, since=since, transport=transport, fetch=False) as events,
    ):
        assert [one.source for one in await take(events, 2)] == names[1:]
        assert gateway.talks[0].since == {names[0]: cursor(3), names[1]: "latest", names[2]: "earliest"}
        assert gateway.talks[1].since == {names[0]: cursor(5), names[1]: cursor(8), names[2]: "earliest"}
        await events.wait_live()
        assert set(events.states.values()) == {"live"}


async def test_a_late_event_does_not_move_the_cursor_past_others_found_with_it() -> None:
    async def first(talk: Talk) -> None:
        await talk.say(subscribed(9), event(11, 20, late=True))
        talk.drop()

    async def second(talk: Talk) -> None:
        await talk.say(event(11, 11, old=True), event(15, 15, old=True), subscribed(20))
        await talk.stay()

    async with (
        fake_gateway(first, second) as gateway,
        Subscriber(gateway.url, source=SOURCE, fetch=False) as events,
    ):
        assert offsets(await take(events, 2)) == [11, 15]
        assert gateway.talks[1].since == {SOURCE: cursor(9)}


async def test_a_live_event_does_not_move_the_cursor_before_the_past_is_told() -> None:
    async def behind(talk: Talk) -> None:
        await talk.say(event(30, 29), subscribed(29, recovered=False, reason="store_lag"))
        await talk.stay()

    async def well(talk: Talk) -> None:
        await talk.say(*(event(n, n, old=True) for n in range(10, 31)), subscribed(30))
        await talk.stay()

    async with (
        fake_gateway(behind, well) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=cursor(9), fetch=False) as events,
    ):
        assert sorted(offsets(await take(events, 21))) == list(range(10, 31))
        assert gateway.talks[1].since == {SOURCE: cursor(9)}


async def test_the_cursors_are_of_what_was_dealt_with_and_resume_another_day() -> None:
    async def script(talk: Talk) -> None:
        since = talk.since[SOURCE]
        after = 9 if since == "latest" else Cursor.parse(since).by_partition[0]
        await talk.say(subscribed(after), *(event(n, n) for n in range(after + 1, after + 50)))
        await talk.stay()

    async with fake_gateway(script) as gateway:
        first = Subscriber(gateway.url, source=SOURCE, fetch=False)
        assert first.cursors == {}
        async with first as events:
            for _ in range(3):
                received = await anext(events)
            assert received.cursor == cursor(12)
            assert events.cursors == {SOURCE: cursor(11)}  # 12 is in hand
        async with Subscriber(gateway.url, source=SOURCE, since=first.cursors, fetch=False) as second:
            assert second.cursors == first.cursors
            assert offsets(await take(second, 2)) == [12, 13]
        async with first as again:  # the same one resumes, too, and hands out what it had only received
            assert offsets(await take(again, 20)) == list(range(12, 32))


async def test_cancelling_the_wait_for_an_event_loses_none() -> None:
    go = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9))
        await go.wait()
        await talk.say(*(event(n, 9) for n in range(10, 20)))
        await talk.stay()

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=SOURCE) as events:
        gateway.hold = asyncio.Event()
        for pause in (0, 0.01, 0.05, 0.1):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), pause)
            go.set()
        gateway.hold.set()
        assert offsets(await take(events, 10)) == list(range(10, 20))


# --- gaps


async def _gapped(talk: Talk) -> None:
    await talk.say(event(3, 3, old=True), subscribed(20, recovered=False, reason="retention"), event(21, 20))
    await talk.stay()


@both
async def test_a_gap_is_raised_in_its_place_and_the_stream_goes_on_behind_it(transport: Any) -> None:
    async with (
        fake_gateway(_gapped) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=cursor(2), transport=transport) as events,
    ):
        assert offsets(await take(events, 1)) == [3]
        with pytest.raises(StreamGap, match="retention") as raised:
            await take(events, 1)
        gap = Gap(source=SOURCE, reason="retention", after=cursor(3), until=cursor(20))
        assert raised.value.gap == gap
        assert events.cursors == {SOURCE: cursor(20)}
        assert offsets(await take(events, 1)) == [21]


async def test_on_gap_is_told_in_its_place_instead() -> None:
    told: list[Gap | int] = []

    async def on_gap(gap: Gap) -> None:
        told.append(gap)

    async with fake_gateway(_gapped) as gateway:
        stream = Subscriber(gateway.url, source=SOURCE, since=cursor(2), on_gap=on_gap, fetch=False)
        async with stream as events:
            told += offsets([await anext(events)])
            told += offsets([await anext(events)])
    assert [one if isinstance(one, int) else one.reason for one in told] == [3, "retention", 21]


async def test_a_plain_loop_that_a_gap_ended_begins_again_behind_it() -> None:
    async with fake_gateway(_gapped) as gateway:
        stream = Subscriber(gateway.url, source=SOURCE, since=cursor(2), fetch=False)
        with pytest.raises(StreamGap):
            _ = [received async for received in stream]
        async for received in stream:
            assert (
                received.id == "id-3"
            )  # whatever this gateway tells: it was asked for what is behind the gap
            break
        assert [talk.since for talk in gateway.talks] == [{SOURCE: cursor(2)}, {SOURCE: cursor(20)}]


async def test_who_asked_for_the_latest_misses_nothing_that_is_not_recovered() -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(20, recovered=False, reason="store_lag"), event(21, 20))
        await talk.stay()

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=SOURCE) as events:
        assert offsets(await take(events, 1)) == [21]
        assert events.stats.gaps == 0


@pytest.mark.parametrize("since", ["latest", "earliest", cursor(8)])
async def test_what_is_lost_in_the_midst_of_a_connection_is_a_gap(since: str) -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9), sync(10))
        await talk.say(subscribed(20, recovered=False, reason="retention"), event(21, 20))
        await talk.stay()

    async with (
        fake_gateway(script) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=since, fetch=False) as events,
    ):
        assert offsets(await take(events, 1)) == [10]
        with pytest.raises(StreamGap, match="retention") as raised:
            await take(events, 1)
        gap = Gap(source=SOURCE, reason="retention", after=cursor(10), until=cursor(20))
        assert raised.value.gap == gap
        assert offsets(await take(events, 1)) == [21]


async def _lagging(talk: Talk) -> None:
    await talk.say(subscribed(20, recovered=False, reason="store_lag"), event(21, 20))
    await talk.stay()


async def test_it_asks_again_for_a_past_that_the_store_does_not_have_yet() -> None:
    async def recovered(talk: Talk) -> None:
        await talk.say(*(event(n, n, old=True) for n in range(3, 22)), subscribed(21))
        await talk.stay()

    async with (
        fake_gateway(_lagging, _lagging, recovered) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=cursor(2), fetch=False) as events,
    ):
        assert offsets(await take(events, 19)) == list(range(3, 22))
        assert [talk.since for talk in gateway.talks] == [{SOURCE: cursor(2)}] * 3


async def test_a_store_that_stays_behind_is_a_gap_after_a_while() -> None:
    async with (
        fake_gateway(_lagging) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=cursor(2), fetch=False, recover_within=0.3) as events,
    ):
        began = time.monotonic()
        with pytest.raises(StreamGap, match="store_lag"):
            await take(events, 1)
        assert time.monotonic() - began > 0.3
        assert offsets(await take(events, 1)) == [21]


async def test_a_kafka_that_does_not_answer_the_gateway_is_no_gap() -> None:
    async def unsure(talk: Talk) -> None:
        past = (event(n, n, old=True) for n in (3, 4))
        await talk.say(*past, subscribed(4, recovered=False, reason="log_unavailable"), event(5, 4))
        await talk.say(sync(5))
        talk.drop()

    async def well(talk: Talk) -> None:
        await talk.say(subscribed(5), event(6, 5))
        await talk.stay()

    async with (
        fake_gateway(unsure, well) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=cursor(2), fetch=False) as events,
    ):
        assert offsets(await take(events, 4)) == [3, 4, 5, 6]
        assert events.stats.gaps == 0
        assert gateway.talks[1].since == {SOURCE: cursor(5)}


async def test_a_source_in_several_partitions_resumes_in_each() -> None:
    async def first(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9), event(4, 9, pos="4:4", cursor=cursor(9, p4=3)))
        await talk.say({**sync(10), "cursor": cursor(10, p4=4)}, event(5, 9, pos="4:5"))
        talk.drop()

    async def second(talk: Talk) -> None:
        again = (event(5, 10, pos="4:5", old=True), event(6, 10, pos="4:6", old=True))
        await talk.say(*again, {**subscribed(10), "cursor": cursor(10, p4=6)})
        await talk.stay()

    async with (
        fake_gateway(first, second) as gateway,
        Subscriber(gateway.url, source=SOURCE, fetch=False) as events,
    ):
        got = await take(events, 4)
        assert [(one.partition, one.offset) for one in got] == [(0, 10), (4, 4), (4, 5), (4, 6)]
        assert gateway.talks[1].since == {SOURCE: cursor(10, p4=4)}
        await events.wait_live()
        assert events.stats.repeats == 1


@both
@pytest.mark.parametrize("reason", ["retention", "compaction"])
async def test_the_earliest_behind_a_hole_is_one_gap_and_what_is_left(transport: Any, reason: str) -> None:
    async def told(talk: Talk) -> None:
        past = (event(n, n, old=True) for n in (8, 9))
        await talk.say(*past, subscribed(9, recovered=False, reason=reason), event(10, 9))
        talk.drop()

    async def well(talk: Talk) -> None:
        await talk.say(subscribed(10), event(11, 10))
        await talk.stay()

    gaps: list[Gap] = []
    options: dict[str, Any] = {"transport": transport, "fetch": False, "on_gap": gaps.append}
    async with (
        fake_gateway(told, well) as gateway,
        Subscriber(gateway.url, source=SOURCE, since="earliest", **options) as events,
    ):
        assert offsets(await take(events, 4)) == [8, 9, 10, 11]
        assert gaps == [Gap(source=SOURCE, reason=reason, after=None, until=cursor(9))]
        assert "before the earliest that are left" in str(gaps[0])


@pytest.mark.parametrize("reason", ["retention", "compaction"])
async def test_the_earliest_in_pages_is_one_gap_and_what_is_left(reason: str) -> None:
    async def refused(talk: Talk) -> None:
        await talk.say(subscribed(99, recovered=False, reason=reason))
        await talk.stay()

    async def live(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9))
        await talk.stay()

    gaps: list[Gap] = []
    async with (
        fake_gateway(refused, live) as gateway,
        Subscriber(gateway.url, source=SOURCE, since="earliest", on_gap=gaps.append) as events,
    ):
        gateway.pages = {
            "earliest": page(8, 8, more=True, recovered=False, reason=reason),
            cursor(8): page(9, 9),
        }
        assert offsets(await take(events, 3)) == [8, 9, 10]
        assert gaps == [Gap(source=SOURCE, reason=reason, after=None, until=cursor(8))]


@pytest.mark.parametrize("reason", ["store_lag", "log_unavailable"])
async def test_a_page_that_may_not_be_all_is_taken_and_the_rest_asked_for_again(reason: str) -> None:
    async def behind(talk: Talk) -> None:
        await talk.say(subscribed(99, recovered=False, reason="too_far_behind"))
        await talk.stay()

    async def live(talk: Talk) -> None:
        await talk.say(event(5, 5, old=True), subscribed(5), event(6, 5))
        await talk.stay()

    async with (
        fake_gateway(behind, live) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=cursor(2)) as events,
    ):
        gateway.pages = {cursor(2): page(3, 4, recovered=False, reason=reason)}
        assert offsets(await take(events, 4)) == [3, 4, 5, 6]
        assert events.stats.gaps == 0
        assert gateway.talks[1].since == {SOURCE: cursor(4)}
        assert gateway.asked[0] == f"page {cursor(2)}"


@both
async def test_a_past_too_long_for_a_connection_is_read_in_pages(transport: Any) -> None:
    async def behind(talk: Talk) -> None:
        await talk.say(subscribed(99, recovered=False, reason="too_far_behind"))
        await talk.stay()

    async def live(talk: Talk) -> None:
        await talk.say(subscribed(99), event(100, 99))
        await talk.stay()

    async with (
        fake_gateway(behind, live) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=cursor(2), transport=transport) as events,
    ):
        gateway.pages = {cursor(2): page(3, 50, more=True), cursor(50): page(51, 99)}
        got = await take(events, 98)
        assert offsets(got) == list(range(3, 101))
        assert got[0].data == {"id": "id-3"}
        assert got[0].old
        assert gateway.talks[1].since == {SOURCE: cursor(99)}
        assert gateway.asked == [f"page {cursor(2)}", f"page {cursor(50)}", "id-100 0:100"]


# --- refusals and absence


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_ends_it_at_once(transport: Any, status: int) -> None:
    async with fake_gateway() as gateway:
        gateway.refusals = [status] * 10
        with pytest.raises(ConfigError, match=str(status)):
            async for _ in Subscriber(gateway.url, source=SOURCE, transport=transport, token="t"):
                pass
        assert gateway.tokens == ["Bearer t"]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (4400, StreamUnavailable),
        (4401, ConfigError),
        (4403, ConfigError),
        (4429, ConfigError),
        (1008, ConfigError),
    ],
)
async def test_a_closing_code_that_will_not_pass_ends_it(code: int, error: type[Exception]) -> None:
    async def script(talk: Talk) -> None:
        await talk.close(code, "because")

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=SOURCE) as events:
        with pytest.raises(error, match="because"):
            await take(events, 1)
        with pytest.raises(error, match="because"):
            await events.wait_live()
        assert len(gateway.talks) == 1


@both
async def test_a_gateway_that_is_away_or_ill_is_tried_again(transport: Any) -> None:
    async def ill(talk: Talk) -> None:
        await talk.say({"kind": "error", "error": "Kafka does not answer; try again", "source": SOURCE})
        await talk.stay()

    async def well(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9))
        await talk.stay()

    async with (
        fake_gateway(ill, well) as gateway,
        Subscriber(gateway.url, source=SOURCE, transport=transport, fetch=False) as events,
    ):
        gateway.refusals = [503, 500]
        assert offsets(await take(events, 1)) == [10]
        assert events.stats.connections == 4


async def test_it_gives_up_when_told_to() -> None:
    async with Subscriber("http://127.0.0.1:1", source=SOURCE, give_up=0.5) as events:
        began = time.monotonic()
        with pytest.raises(StreamUnavailable, match=r"away for 0\.5 s"):
            await take(events, 1)
        assert 0.4 < time.monotonic() - began < 20


@both
async def test_an_expired_token_is_made_anew_but_a_refused_one_is_not_repeated(transport: Any) -> None:
    made: list[str] = []
    renewed, over = asyncio.Event(), asyncio.Event()

    async def token() -> str:
        made.append(f"t{len(made)}")
        return made[-1]

    async def expires(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9))
        if talk.token == "Bearer t1":
            renewed.set()
            await over.wait()
        if transport == "ws":
            await talk.close(4401, "expired")
        else:
            await talk.say({"kind": "error", "error": "the token has expired"})

    async with fake_gateway(expires) as gateway:
        gateway.refusals = [200, 401] if transport == "sse" else [200]
        stream = Subscriber(gateway.url, source=SOURCE, transport=transport, token=token, fetch=False)
        async with stream as events:
            await take(events, 1)
            async with asyncio.timeout(30):
                await renewed.wait()
            gateway.refusals = [401] * 10
            over.set()
            with pytest.raises(ConfigError, match="token"):
                await take(events, 1)
        assert gateway.tokens[0] == "Bearer t0"
        assert len(gateway.tokens) <= 6


async def test_what_goes_wrong_inside_reaches_who_iterates() -> None:
    def token() -> str:
        raise OSError("the keyring is locked")

    async with fake_gateway() as gateway, Subscriber(gateway.url, source=SOURCE, token=token) as events:
        with pytest.raises(OSError, match="keyring"):
            await take(events, 1)


# --- slowness and silence


@both
async def test_a_half_open_connection_is_noticed(transport: Any) -> None:
    async def mute(talk: Talk) -> None:
        await talk.say(subscribed(9))
        await asyncio.Event().wait()  # no ping is answered, no comment sent

    async def well(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9))
        await talk.stay()

    async with (
        fake_gateway(mute, well) as gateway,
        Subscriber(gateway.url, source=SOURCE, transport=transport, fetch=False, silence=0.5) as events,
    ):
        began = time.monotonic()
        await take(events, 1)
        assert 0.3 < time.monotonic() - began < 20


@both
async def test_while_nobody_takes_events_the_socket_is_not_read(transport: Any) -> None:
    sent = 0

    async def script(talk: Talk) -> None:
        nonlocal sent
        if sent == 0:
            await talk.say(subscribed(-1))
            for sent in range(1, 20_001):
                await talk.say(event(sent, sent, padding="x" * 2000))  # more than the kernel holds
        await talk.stay()

    async with (
        fake_gateway(script) as gateway,
        Subscriber(gateway.url, source=SOURCE, transport=transport, fetch=False) as events,
    ):
        before = -1
        while sent != before:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 19_000
        assert events.stats.received <= 1001
        assert offsets(await take(events, 20_000, timeout=60)) == list(range(1, 20_001))
        assert events.stats.connections == 1


async def test_closing_is_bounded_whatever_the_gateway_does() -> None:
    async def mute(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9))
        await asyncio.Event().wait()

    async with fake_gateway(mute) as gateway:
        gateway.hold = asyncio.Event()
        events = Subscriber(gateway.url, source=SOURCE)
        async with events:
            waiting = asyncio.create_task(take(events, 1))
            await until(lambda: bool(gateway.asked))
            began = time.monotonic()
        assert time.monotonic() - began < 20
        with pytest.raises(StopAsyncIteration):
            await waiting
        gateway.hold.set()


# --- whole events


async def test_whole_events_are_fetched_several_at_a_time_and_handed_out_in_order() -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(-1), *(event(n, -1) for n in range(100)))
        await talk.stay()

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=SOURCE) as events:
        gateway.hold = asyncio.Event()
        waiting = asyncio.create_task(take(events, 100))
        await until(lambda: gateway.most_at_once == 16)
        gateway.hold.set()
        got = await waiting
        assert [one.data["id"] for one in got] == [f"id-{n}" for n in range(100)]
        assert gateway.most_at_once == 16


async def test_an_event_that_the_store_does_not_have_yet_is_asked_for_again() -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9), event(11, 9))
        await talk.stay()

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=SOURCE) as events:
        gateway.answers = {"id-10": [(404, {"Retry-After": "1"}), (503, {}), (404, {"Retry-After": "1"})]}
        assert offsets(await take(events, 2)) == [10, 11]
        assert gateway.asked.count("id-10 0:10") == 4


async def test_sources_do_not_wait_for_each_others_events() -> None:
    """Somebody's transaction may hold an event back for a minute: its source waits, and keeps its order."""
    names = [SOURCE, "repo:b/b"]

    async def script(talk: Talk) -> None:
        await talk.say(*(subscribed(9, source=name) for name in names))
        await talk.say(
            event(10, 9), event(11, 9), event(12, 9, source=names[1]), event(13, 9, source=names[1])
        )
        await talk.stay()

    not_yet = (404, {"Retry-After": "1"})
    async with (
        fake_gateway(script, sources=2) as gateway,
        Subscriber(gateway.url, sources=names) as events,
    ):
        gateway.answers = {"id-10": [not_yet] * 1000}
        assert [(one.source, one.offset) for one in await take(events, 2)] == [(names[1], 12), (names[1], 13)]
        gateway.answers.clear()
        assert [(one.source, one.offset) for one in await take(events, 2)] == [(SOURCE, 10), (SOURCE, 11)]


async def test_an_event_that_is_gone_is_a_gap_that_names_it() -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9), event(11, 10))
        await talk.stay()

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=SOURCE) as events:
        gateway.answers = {"id-10": [(404, {})]}
        with pytest.raises(StreamGap, match="id-10") as raised:
            await take(events, 1)
        gap = raised.value.gap
        assert gap.reason == "not_fetched"
        assert gap.event is not None
        assert (gap.event.id, gap.event.offset, gap.event.event) == ("id-10", 10, None)
        assert offsets(await take(events, 1)) == [11]


ODD_IDS = ("//", "a/b", ".", "..", "{x}", "a{b", "%2F", "a%b", "+", "a&pos=0:0", "#", "?", ";", "'", "~")


async def test_ids_and_sources_of_every_allowed_character_are_fetched() -> None:
    allowed = "".join(c for c in string.printable.strip() if c not in '"\\')
    ids = (*ODD_IDS, allowed[:64], allowed[64:])
    source = "repo:ö/a%2F+&=#{}~;:@日本"

    async def script(talk: Talk) -> None:
        told = (event(n, -1, id=one, source=source) for n, one in enumerate(ids))
        await talk.say(subscribed(-1, source=source), *told)
        await talk.stay()

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=source) as events:
        got = await take(events, len(ids))
        assert [one.data for one in got] == [{"id": one} for one in ids]
        assert sorted(gateway.asked) == sorted(f"{one} 0:{n}" for n, one in enumerate(ids))
        assert (events.stats.gaps, events.stats.refused) == (0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        ("0:10", whole("id-10", source="repo:evil/x", forged=True)),
        ("0:10", whole("id-9")),
        ("0:12", whole("id-10", forged=True)),
    ],
    ids=["another source", "another id", "a later one"],
)
async def test_what_is_not_the_event_that_was_announced_is_never_handed_out(wrong: tuple[str, bytes]) -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9), event(11, 10))
        await talk.stay()

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=SOURCE) as events:
        gateway.wrong = {"id-10": wrong}
        with pytest.raises(StreamGap, match="id-10") as raised:
            await take(events, 1)
        assert raised.value.gap.reason == "not_fetched"
        assert offsets(await take(events, 1)) == [11]
        assert (events.stats.gaps, events.stats.refused) == (1, 1)


async def test_an_event_that_is_in_the_log_twice_is_the_first_of_them() -> None:
    async def script(talk: Talk) -> None:
        await talk.say(subscribed(9), event(10, 9))
        await talk.stay()

    async with fake_gateway(script) as gateway, Subscriber(gateway.url, source=SOURCE) as events:
        gateway.wrong = {"id-10": ("0:3", whole("id-10"))}
        assert (await take(events, 1))[0].data == {"id": "id-10"}


async def test_a_page_that_holds_another_sources_event_does_not_hand_it_out() -> None:
    async def behind(talk: Talk) -> None:
        await talk.say(subscribed(99, recovered=False, reason="too_far_behind"))
        await talk.stay()

    async def live(talk: Talk) -> None:
        await talk.say(subscribed(4), event(5, 4))
        await talk.stay()

    async with (
        fake_gateway(behind, live) as gateway,
        Subscriber(gateway.url, source=SOURCE, since=cursor(2)) as events,
    ):
        mixed = page(3, 4)
        mixed["events"].insert(1, json.loads(whole("id-7", source="repo:evil/x")))
        gateway.pages = {cursor(2): mixed}
        assert offsets(await take(events, 1)) == [3]
        with pytest.raises(StreamGap, match="id-7"):
            await take(events, 1)
        assert offsets(await take(events, 2)) == [4, 5]
        assert events.stats.refused == 1
