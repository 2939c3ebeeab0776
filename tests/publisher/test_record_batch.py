"""Our record batches, read by aiokafka's own reader."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceRequest_v8
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.common import event_headers
from dualstream_lab import DualPublisher, Event, Settings
from dualstream_lab.errors import ConfigError, EventError
from dualstream_lab.event import encode_event
from dualstream_lab.publisher.encoder import Encoder
from dualstream_lab.publisher.kafka import _Produce, _Produce_v7, _Produce_v8
from dualstream_lab.publisher.record_batch import CODECS, BatchLimit, RecordBatch
from dualstream_lab.publisher.record_format import varint
from dualstream_lab.publisher.routes import Routes

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=20)
made = st.builds(
    Event,
    type=st.sampled_from(["push", "issues.opened", "é"]),
    source_type=st.sampled_from(["repo", "user"]),
    source_id=st.sampled_from(["a", "owner/näme", "x" * 200]),
    occurred_at=st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    traceparent=st.sampled_from([TRACE, *[Event(type="", source_type="", source_id="").traceparent] * 3]),
    data=st.integers() | st.text(st.characters(codec="utf-8"), max_size=300) | st.just("x" * 20_000),
)


def read(buffer: bytes) -> tuple[object, list]:
    records = MemoryRecords(buffer)
    batch = records.next_batch()
    assert batch.validate_crc()
    found = list(batch)
    assert not records.has_next()
    return batch, found


HEADERS = [("tenant", b"acme"), ("x-empty", b"")]


@given(
    st.lists(made, min_size=1, max_size=40),
    st.lists(st.integers(-5, 5), min_size=1, max_size=3),
    st.sampled_from(list(CODECS.values())),
    st.sampled_from([[], HEADERS]),
)
def test_every_event_is_read_back_as_aiokafka_would_have_written_it(events, shifts, codec, headers):
    routes = Routes(Settings.load(), partitions=1)
    encoder = Encoder(routes, limit=BatchLimit(1 << 20, 1 << 20), headers=headers)
    batch = RecordBatch(1 << 24, codec)
    for shift in shifts:
        (part,) = encoder.call(events).parts
        assert batch.add(part.records, 1_700_000_000_000 + shift) == len(events)
    batch._set_producer_state(77, 3, 1000)
    header, records = read(b"".join(batch.pieces()))
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (77, 3, 1000)
    assert batch.record_count() == len(records) == len(events) * len(shifts)
    for place, record in enumerate(records):
        event = events[place % len(events)]
        assert record.offset == place
        assert record.timestamp == 1_700_000_000_000 + shifts[place // len(events)]
        assert record.key == event.source_id.encode()
        assert record.value == encode_event(event)
        expected = event_headers(event)
        assert sorted(record.headers) == sorted(expected + headers)


@given(
    st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=50),
    st.sampled_from([codec for codec in CODECS.values() if codec is not None]),
)
def test_a_compressed_batch_is_never_larger_than_it_would_be_without(records, codec):
    plain, compressed = RecordBatch(1 << 24), RecordBatch(1 << 24, codec)
    for batch in (plain, compressed):
        batch.add(records, 1)
    size = len(b"".join(compressed.pieces()))
    assert size <= len(b"".join(plain.pieces()))
    assert size == compressed.size()
    header = MemoryRecords(b"".join(compressed.pieces())).next_batch()
    assert header.compression_type == (codec.number if size < len(b"".join(plain.pieces())) else 0)


@given(
    st.lists(st.lists(st.binary(max_size=300), max_size=30), min_size=1, max_size=4),
    st.lists(st.integers(-(10**9), 10**9), min_size=4, max_size=4),
    st.sampled_from(list(CODECS.values())),
)
def test_what_was_added_can_be_taken_out_again_before_and_after_it_was_sent(groups, times, codec):
    batch = RecordBatch(1 << 24, codec)
    for group, time in zip(groups, times, strict=False):
        batch.add(group, 1_700_000_000_000 + time)
    added = [record for group in groups for record in group]
    assert batch.records() == added
    b"".join(batch.pieces())
    assert batch.records() == added


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4", "zstd"])
def test_an_event_may_be_as_large_as_the_topic_takes_it_compressed(name):
    codec = CODECS[name]
    encoder = Encoder(Routes(Settings.load(), partitions=1), limit=BatchLimit(1 << 18, 50_000), codec=codec)
    source = {"type": "t", "source_type": "repo", "source_id": "a"}
    (part,) = encoder.call([Event(**source, data="x" * 500_000)]).parts
    batch = RecordBatch(50_000, codec)
    assert batch.add(part.records, 1) == 1
    assert len(b"".join(batch.pieces())) <= 50_000
    with pytest.raises(EventError, match="the topic takes at most 49900"):
        encoder.call([Event(**source, data=random.Random(1).randbytes(50_000).hex())])


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("a", b"")] * 17, r"at most 16 are allowed \(are 17\)"),
        ([("", b"x")], "needs a name of 1 to 256 bytes"),
        ([("x" * 257, b"x")], "needs a name of 1 to 256 bytes"),
        ([("a\nb", b"x")], "needs a name of 1 to 256 bytes"),
        ([("a", "x")], r"is not a name \(str\) and a value \(bytes\)"),
        (["ab"], r"is not a name \(str\) and a value \(bytes\)"),
        ([("a", b"x", b"y")], r"is not a name \(str\) and a value \(bytes\)"),
        ([("a", b"x" * 4097)], "has a value of 4097 bytes; at most 4096 are allowed"),
        ([("ce_id", b"x")], "is a header that the publisher itself writes"),
        ([("Content-Type", b"x")], "is a header that the publisher itself writes"),
        ([("traceparent", b"x")], "is a header that the publisher itself writes"),
    ],
)
def test_headers_that_cannot_be_used_are_refused_by_name(headers, reason):
    with pytest.raises(ConfigError, match=f"headers: .*{reason}"):
        DualPublisher(Settings.load(), headers=headers)


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=200), st.integers(100, 20_000))
def test_a_batch_keeps_its_limit_but_always_takes_a_first_record(records, limit):
    batch = RecordBatch(limit)
    taken = batch.add(records, 1)
    assert taken >= 1
    at_most = batch.size()
    size = len(b"".join(batch.pieces()))
    assert size <= at_most
    assert size <= limit or taken == 1
    if taken < len(records):
        assert at_most + len(records[taken]) + 15 > limit


def test_a_batch_has_at_most_as_many_records_as_offsets_are_ready():
    batch = RecordBatch(1 << 30)
    assert batch.add([b"x"] * 20_000, 1) == 16_384


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, b"\x00"), (-1, b"\x01"), (1, b"\x02"), (63, b"\x7e"), (64, b"\x80\x01"), (-65, b"\x81\x01")],
)
def test_varints_are_zigzag(number, encoded):
    assert varint(number) == encoded


@pytest.mark.parametrize(
    ("joined", "theirs"), [(_Produce_v7, ProduceRequest_v7), (_Produce_v8, ProduceRequest_v8)]
)
def test_a_request_joined_once_is_what_aiokafka_would_send(joined, theirs):
    batches = {3: [b"head", b"", b"records" * 1000], 0: [b"x"]}
    topics = [("events-ä", list(batches.items()))]
    whole = [("events-ä", [(partition, b"".join(pieces)) for partition, pieces in batches.items()])]
    sent, expected = _Produce(topics, 3000).build(joined), theirs(None, -1, 3000, whole)
    ours = sent.build_request_header(7, "client").encode() + sent.encode()
    assert ours == expected.build_request_header(7, "client").encode() + expected.encode()
    assert "events-ä" in repr(sent), "as aiokafka logs it"
