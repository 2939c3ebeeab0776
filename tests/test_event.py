"""The event's codec, channels and headers, for every input that can be drawn."""

import fnmatch
import json
import unicodedata
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone, tzinfo

import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from benchmarks.peers.common import event_headers
from dualstream_lab.errors import EventError
from dualstream_lab.event import (
    Event,
    Notification,
    channel_of,
    cloudevents_source,
    decode_event,
    decode_notification,
    encode_event,
    id_invalid_reason,
    invalid_reason,
    new_id,
    resync_channel,
    shard_channel,
    source_invalid_reason,
)

text = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\'), min_size=1)
names = (
    text.map(lambda drawn: unicodedata.normalize("NFC", drawn))
    | st.from_regex(r"[A-Za-z0-9-]{1,12}/[A-Za-z0-9._-]{1,12}", fullmatch=True)
    | st.sampled_from(["dependabot[bot]", "octo-org/octo-repo", "日本/語", "é", "a:b", "x#y%20z&"])
)
source_types = st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True)
sources = st.tuples(source_types, names).filter(lambda source: source_invalid_reason(*source) is None)
zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# CPython's datetime comparison overflows at the very ends of the calendar.
times = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=zones)  # noqa: DTZ001
traceparents = st.just(msgspec.UNSET) | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", fullmatch=True)


@st.composite
def events(draw, data=json_values):
    source_type, source_id = draw(sources)
    event = Event(
        id=draw(ids.filter(lambda drawn: id_invalid_reason(drawn) is None)),
        type=draw(st.from_regex(r"[a-z_]{1,8}(\.[a-z_]{1,8})?", fullmatch=True) | st.just("тип")),
        source_type=source_type,
        source_id=source_id,
        occurred_at=draw(times),
        traceparent=draw(traceparents),
        data=draw(data),
    )
    assert invalid_reason(event) is None
    return event


def same_but_data(one, other):
    return all(
        getattr(one, name) == getattr(other, name) for name in Event.__struct_fields__ if name != "data"
    )


# Codec


@given(events())
def test_an_event_survives_its_encoding(event):
    decoded = decode_event(encode_event(event))
    assert same_but_data(decoded, event)
    assert json.loads(bytes(decoded.data)) == event.data


@given(events(json_values.map(lambda value: msgspec.Raw(json.dumps(value, indent=1).encode()))))
def test_raw_data_is_kept_byte_for_byte(event):
    value = encode_event(event)
    assert bytes(decode_event(value).data) == bytes(event.data)
    assert encode_event(decode_event(value)) == value


@pytest.mark.parametrize("written", [b"1.0", b"1e2", rb'"\u00e9\/"', '"é"'.encode(), b'{ "a" : 1,"a":2}'])
def test_a_spelling_of_json_is_not_changed(written):
    line = b'{"type":"t","source_type":"user","source_id":"x","data": %b }' % written
    assert bytes(decode_event(line).data) == written
    assert encode_event(decode_event(line)).endswith(b'"data":' + written + b"}")


def test_what_is_missing_is_filled_in():
    before = datetime.now(UTC)
    event = decode_event(b'{"type":"t","source_type":"user","source_id":"x"}')
    assert before <= event.occurred_at <= datetime.now(UTC)
    assert bytes(event.data) == b"null"
    assert event.traceparent is msgspec.UNSET
    assert invalid_reason(event) is None


def test_new_ids_are_unique_and_ordered():
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))


EVENT = b'{"id":"a","type":"t","source_type":"user","source_id":"x","data":%b}'


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (b"", "truncated"),
        (b"[1]", "Expected `object`, got `array`"),
        (b"17", "Expected `object`, got `int`"),
        (b'{"type":"t"}', "source_type"),
        (b'{"type":1,"source_type":"a","source_id":"x"}', r"\$\.type"),
        (EVENT % b'{"a":1,}', "trailing comma"),
        (EVENT % b"NaN", "malformed"),
        (EVENT % b'"\xff"', "utf-8"),
        (EVENT % (b"[" * 100_000 + b"]" * 100_000), "recursion"),
        (EVENT % b"1" + b"{}", "trailing characters"),
        (b'{"type":"t","source_type":"a","source_id":"x","occurred_at":"noon"}', "occurred_at"),
    ],
)
def test_bytes_that_are_no_event_are_refused_with_the_reason(value, told):
    with pytest.raises(EventError, match=told):
        decode_event(value)


@given(st.binary())
def test_any_bytes_are_an_event_or_an_event_error(value):
    with suppress(EventError):
        decode_event(value)


@pytest.mark.parametrize("data", [object(), "\ud800", {("a", 1): 2}, {1j: 2}])
def test_data_without_a_json_form_is_refused(data):
    with pytest.raises(EventError, match="data cannot be written as JSON"):
        encode_event(Event(type="t", source_type="user", source_id="x", data=data))


def test_data_that_contains_itself_is_refused():
    data: list[object] = []
    data.append(data)
    with pytest.raises(EventError, match="recursion"):
        encode_event(Event(type="t", source_type="user", source_id="x", data=data))


# Notification


@given(sources, st.none() | st.tuples(st.integers(0, 10_000), st.integers(0, 2**63 - 1)))
def test_a_notification_survives_and_says_where_its_event_is(source, position):
    pos = None if position is None else f"{position[0]}:{position[1]}"
    notification = Notification(id="a", type="t", source_id=source[1], pos=pos)
    decoded = decode_notification(msgspec.json.encode(notification))
    assert decoded == notification
    assert decoded.position == position


@pytest.mark.parametrize("message", [b"", b"[]", b"\xff", b'{"id":1}', b'{"x":' + b"[" * 100_000])
def test_a_message_that_is_no_notification_is_refused(message):
    with pytest.raises(EventError, match="not a notification"):
        decode_notification(message)


@pytest.mark.parametrize("pos", ["", "1", "1:", "a:b"])
def test_a_position_of_another_form_is_an_event_error(pos):
    with pytest.raises(EventError, match="partition:offset"):
        _ = Notification(id="a", type="t", source_id="x", pos=pos).position


# Sources and channels


@given(source_types | text, names | text)
@settings(suppress_health_check=[HealthCheck.filter_too_much])  # most arbitrary texts are refused
@example("user", "a b")
@example("user", "a\u00a0b")
@example("user", "a\nb")
@example("user", "e\u0301")
@example("user", "a\u202eb")
@example("user", "a*")
@example("user", "a?")
@example("user", "a\\b")
@example("user", "_resync")
@example("us:er", "a")
@example("user\n", "a")
@example("user", "")
@example("user", "\ud800")
@example("user", "é" * 129)
def test_an_accepted_source_is_safe_in_a_channel(source_type, source_id):
    assume(source_invalid_reason(source_type, source_id) is None)
    channel = channel_of(source_type, source_id)
    assert not set("*?\\").intersection(channel)
    assert not any(character.isspace() or unicodedata.category(character)[0] in "CZ" for character in channel)
    assert unicodedata.is_normalized("NFC", channel)
    assert len(source_id.encode()) <= 256
    assert channel.count(":") >= 2
    assert ":_" not in channel[: len(f"events:{source_type}:_")]
    assert channel != resync_channel()


@pytest.mark.parametrize(
    ("source_type", "source_id", "told"),
    [
        ("Repo", "a", "source_type"),
        ("repo:x", "a", "source_type"),
        ("repo", "", "empty"),
        ("repo", 7, "not a string"),
        ("repo", "a b", "without spaces"),
        ("repo", "a\x00", "printable"),
        ("repo", "*", "'*'"),
        ("repo", "_x", "reserved"),
        ("repo", "e\u0301", "normal form C"),
        ("repo", "é" * 129, "258 bytes"),
    ],
)
def test_a_refused_source_says_why(source_type, source_id, told):
    assert told in (source_invalid_reason(source_type, source_id) or "accepted")


def test_what_github_sends_is_accepted():
    for source in [("repo", "octo-org/.github"), ("user", "dependabot[bot]"), ("org", "日本")]:
        assert source_invalid_reason(*source) is None


@given(sources, sources)
@example(("a", "b:c"), ("a-b", "c"))
def test_distinct_sources_have_distinct_channels(one, other):
    assume(one != other)
    assert channel_of(*one) != channel_of(*other)
    assert cloudevents_source(*one) != cloudevents_source(*other)


@given(sources, st.integers(1, 65_536))
def test_a_shard_channel_is_stable_and_never_a_source_of_its_own(source, shards):
    channel = shard_channel(*source, shards)
    assert channel == shard_channel(*source, shards)
    prefix, _, shard = channel.rpartition("_shard")
    assert prefix == f"events:{source[0]}:"
    assert 0 <= int(shard) < shards
    assert source_invalid_reason(source[0], f"_shard{shard}") is not None


def test_the_shard_of_a_source_does_not_depend_on_the_process():
    # 0xCBF43926 is the check value of CRC-32 for these nine digits.
    assert shard_channel("repo", "123456789", 65_536) == f"events:repo:_shard{0x3926}"


def test_shards_share_the_sources_evenly():
    counts = [0] * 16
    for number in range(16_000):
        counts[int(shard_channel("user", f"user-{number}", 16).rpartition("_shard")[2])] += 1
    assert max(counts) < 1.2 * min(counts)


# Headers


@given(events())
def test_the_headers_are_cloudevents_as_its_own_sdk_reads_them(event):
    headers = event_headers(event)
    assert len({name for name, _ in headers}) == len(headers)
    read = from_binary_event(
        KafkaMessage(headers=dict(headers), key=event.source_id.encode(), value=encode_event(event))
    )
    assert read.get_specversion() == "1.0"
    assert read.get_id() == event.id
    assert read.get_type() == event.type
    assert read.get_source() == cloudevents_source(event.source_type, event.source_id)
    assert read.get_time() == event.occurred_at
    assert read.get_datacontenttype() == "application/json"
    assert read.get_data()["data"] == event.data
    traceparent = event.traceparent if isinstance(event.traceparent, str) else None
    assert read.get_extension("traceparent") == traceparent
    assert dict(headers).get("traceparent") == (traceparent.encode() if traceparent else None)


@given(sources)
def test_ce_source_is_a_plain_uri_reference(source):
    written = cloudevents_source(*source)
    assert written.isascii()
    assert fnmatch.fnmatchcase(written, f"/{source[0]}/*")
    assert not set(' "<>\\^`{|}#?').intersection(written)


# Validation of the whole


class _NoOffset(tzinfo):
    def utcoffset(self, moment):
        return None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": ""}, "id ''"),
        ({"id": "a b"}, "without space"),
        ({"id": "x" * 129}, "1 to 128"),
        ({"type": ""}, "type is empty"),
        ({"type": "a b"}, "type 'a b'"),
        ({"source_id": "*"}, "source_id"),
        ({"occurred_at": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001
        ({"occurred_at": datetime(2026, 1, 1, tzinfo=_NoOffset())}, "time zone"),
        (
            {"occurred_at": datetime(1880, 1, 1, tzinfo=timezone(timedelta(seconds=1108)))},
            "convert it to UTC",
        ),
        ({"occurred_at": "now"}, "time zone"),
        ({"traceparent": "00-1"}, "W3C"),
    ],
)
def test_an_event_that_cannot_be_published_says_which_field(change, told):
    event = Event(type="t", source_type="user", source_id="x")
    assert invalid_reason(event) is None
    assert told in (invalid_reason(msgspec.structs.replace(event, **change)) or "accepted")
