"""The compiled core and its twin in plain Python: the same bytes, the same words."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstream_lab import Event, Settings
from dualstream_lab.errors import EventError
from dualstream_lab.publisher import encoder, plain, record_batch
from dualstream_lab.publisher.call import PartitionSlice
from dualstream_lab.publisher.encoder import Encoder
from dualstream_lab.publisher.record_batch import BatchLimit, RecordBatch
from dualstream_lab.publisher.routes import Routes

try:
    from dualstream_lab.publisher import compiled
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip("no compiled core was built: that needs a C compiler", allow_module_level=True)

_ids = st.one_of(st.uuids().map(str), st.text(max_size=140), st.just("a" * 128), st.just('"occurred_at":"'))
_texts = st.one_of(
    st.sampled_from(["push", "a", "é", 'x","occurred_at":"y', '\\"occurred_at":"', "owner/r1", "_no"]),
    st.text(max_size=300),
)
_zones = st.sampled_from([UTC, timezone(timedelta(hours=2)), timezone(timedelta(seconds=1)), None])
_times = st.datetimes(timezones=_zones)
_raw = st.sampled_from(
    [b"1", b"[1,  2]", b'"\xff"', b'"\xc3\xa9"', b"1 2", b"", b"{", b"[" * 600 + b"]" * 600]
)
_data = st.one_of(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    ),
    _raw.map(msgspec.Raw),
    st.sampled_from([object(), {1, 2}, "x" * 20_000, "é" * 3000, {"occurred_at": "x"}]),
)
_traces = st.sampled_from([msgspec.UNSET, None, "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "bad", 3])
_valid = {"type": st.just("push"), "source_type": st.just("repo"), "source_id": _texts, "data": _data}
_strange = {
    "id": st.sampled_from([None, 3, b"x"]),
    "type": st.sampled_from([None, [], 3]),
    "source_type": st.just([]),
    "source_id": st.just(7),
    "occurred_at": st.just("now"),
}
_any = {
    "id": _ids,
    "type": _texts,
    "source_type": st.sampled_from(["repo", "Repo", "", "r" * 70]),
    "source_id": _texts,
    "occurred_at": _times,
    "traceparent": _traces,
    "data": _data,
}
_events = st.one_of(
    *(st.builds(Event, **fields) for fields in (_any, _valid, _strange)),
    st.sampled_from([None, 3, "event"]),
)


def encoded(core: Any, monkeypatch: pytest.MonkeyPatch, batches: list[list[Any]], limit: int) -> list[Any]:
    """All that comes of them: errors as text, and every column, batch and notification."""
    for module, names in ((encoder, ("encode", "record")), (record_batch, ("frame",))):
        for name in names:
            monkeypatch.setattr(module, name, getattr(core, name))
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    routes = Routes(Settings(), partitions=3)
    monkeypatch.setattr(routes, "nonce", "n")
    encode = Encoder(routes, limit=BatchLimit(limit, limit + 1000), headers=[("h", b"v")])
    found: list[Any] = []
    for number, batch in enumerate(batches):
        try:
            call = encode.call(batch, skip_invalid=True)
        except EventError as error:
            found.append(str(error))
            continue
        found.append((call.invalid, call.events, call.size))
        for part in call.parts:
            part.base = -1 if number % 3 == 2 else 10 ** (7 * (number % 3))
            found.append(
                (part.partition, part.indices, part.types, [r.source for r in part.routes], part.records)
            )
            found.append(core.publish_commands(part, "epoch", 17, details=bool(number % 2)))
            made = RecordBatch(limit)
            found.append((made.add(part.records, 1000), made.size(), made.records(), b"".join(made.pieces())))
    return found


@settings(max_examples=300)
@given(st.lists(st.lists(_events, max_size=8), max_size=6), st.sampled_from([300, 3000, 10**6]))
def test_both_cores_make_the_same_bytes_and_refuse_with_the_same_words(batches, limit):
    with pytest.MonkeyPatch.context() as patch:
        plainly = encoded(plain, patch, batches, limit)
    with pytest.MonkeyPatch.context() as patch:
        assert encoded(compiled, patch, batches, limit) == plainly


@given(
    st.lists(st.binary(max_size=200) | st.sampled_from([b"x" * 9000, b"x" * 2_200_000]), max_size=8),
    st.sampled_from([0, 1, 63, 64, 8191, 8192, 16_380, 16_384]),
    st.integers(-100, 20_000),
    st.sampled_from([b"\x00\x00", b"\x00\xff\xff\x7f"]),
)
def test_both_cores_frame_records_alike(records, place, room, middle):
    assert compiled.frame(records, place, room, middle) == plain.frame(records, place, room, middle)


def test_a_notification_has_any_number():
    routes = Routes(Settings(), partitions=1)
    for number in (0, 9, 10, 2**31, 2**62):
        for base in (-1, 0, 9, 99, 2**62):
            told = []
            for core in (plain, compiled):
                part = PartitionSlice(["a"], 0, 1)
                part.base, part.indices, part.types = base, [0], ['"t"']
                part.routes = [routes.route("repo", "é" * 80)]
                part.routes[0].count = number
                told.append(core.publish_commands(part, "e", 1, details=True))
            assert told[0] == told[1]


def test_a_time_is_found_whatever_stands_before_it():
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
    event = Event(
        type='"occurred_at":"', source_type="repo", source_id='"occurred_at":"x"', occurred_at=moment
    )
    for core in (plain, compiled):
        with pytest.MonkeyPatch.context() as patch:
            _, (*_, records), *_ = encoded(core, patch, [[event, event]], 10**6)
        assert all(each.count(b"2026-01-02T03:04:05.000678Z") == 2 for each in records)


def test_both_cores_take_the_same_ids():
    names = [chr(letter) for letter in range(300)] + ["", "a" * 128, "a" * 129]
    batch = [Event(id=f"{name}", type="push", source_type="repo", source_id="a") for name in ("a", *names)]
    told = []
    for core in (plain, compiled):
        with pytest.MonkeyPatch.context() as patch:
            told.append(encoded(core, patch, [batch], 10**6))
    assert told[0] == told[1]
    assert len(told[0][0][0]) == 300 - 92 + 2


def test_both_cores_fill_the_same_room():
    records = [b"x" * 10, b"y" * 20, b"z"]
    for room in range(100):
        assert compiled.frame(records, 1, room, b"\0\0") == plain.frame(records, 1, room, b"\0\0")
