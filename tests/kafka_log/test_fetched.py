"""What a fetch brought, taken apart: batches made by hand, as brokers give them after years of cleaning."""

from __future__ import annotations

import struct

import pytest
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.kafka_log import Records
from dualstream_lab.kafka_log.fetched import unpack

COMMITTED = 1


def batch(first, offsets, end, *, producer=-1, transactional=False, control=False, codec=0):
    """The batch of ``first <= offset < end`` that has only these any more."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=transactional,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=0,
        batch_size=2**20,
    )
    for offset in offsets:
        assert builder.append(offset - first, timestamp=1, key=None, value=b"%d" % offset, headers=[])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, first)
    struct.pack_into(">i", data, 23, end - first - 1)
    if control:
        data[22] |= 0x20
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])) & 0xFFFFFFFF)
    return bytes(data)


def fetched(batches, position, *, aborted=()):
    return PartitionRecords(
        TopicPartition("t", 0), MemoryRecords(b"".join(batches)), list(aborted), position, None, None, True,
        COMMITTED,
    )  # fmt: skip


def taken(fetch, position, room=10**6):
    """All of it, ``room`` records or more at a time."""
    part = Records(0, position)
    offsets, holes, whole = [], [], False
    while not whole:
        part = Records(0, part.next_)
        whole = unpack(fetch, part, room)
        offsets += [record.offset for record in part.records]
        holes += part.holes
    return offsets, holes, part.next_


@given(st.data())
def test_every_offset_is_a_record_or_in_a_hole_and_the_position_ends_behind_the_last(data):
    kept, batches, end = [], [], data.draw(st.integers(0, 5))
    start = end
    for _ in range(data.draw(st.integers(1, 5))):
        first = end + data.draw(st.integers(0, 3))
        end = first + data.draw(st.integers(1, 6))
        offsets = data.draw(st.lists(st.integers(first, end - 1), unique=True).map(sorted))
        batches.append(batch(first, offsets, end, codec=data.draw(st.sampled_from([0, 1]))))
        kept += offsets
    position = data.draw(st.integers(start, end))
    room = data.draw(st.integers(1, 8))
    offsets, holes, next_ = taken(fetched(batches, position), position, room)
    assert offsets == [offset for offset in kept if offset >= position]
    missing = [offset for first, behind in holes for offset in range(first, behind)]
    assert sorted(offsets + missing) == list(range(position, end))
    assert next_ == max(position, end)


@pytest.mark.parametrize("marker", [[], [2]])
def test_behind_an_abort_marker_the_same_producer_is_read_again_also_if_it_was_emptied(marker):
    batches = [
        batch(0, [0, 1], 2, producer=7, transactional=True),
        batch(2, marker, 3, producer=7, transactional=True, control=True),
        batch(3, [3], 4, producer=7, transactional=True),
        batch(4, [4], 5, producer=8, transactional=True),
    ]
    offsets, _, next_ = taken(fetched(batches, 0, aborted=[(7, 0)]), 0)
    assert (offsets, next_) == ([3, 4], 5)


@pytest.mark.parametrize(("magic", "codec"), [(0, 0), (1, 0), (1, 1)])
def test_batches_of_the_formats_before_are_read(magic, codec):
    builder = LegacyRecordBatchBuilder(magic=magic, compression_type=codec, batch_size=2**20)
    for offset in range(3):
        assert builder.append(offset, timestamp=-1, key=None, value=b"%d" % offset)
    data = bytes(builder.build())
    offsets, holes, next_ = taken(fetched([data], 1), 1)
    assert (offsets, holes, next_) == ([1, 2], [], 3)


def test_what_is_good_before_an_error_is_kept_and_the_position_is_the_bad_ones():
    bad = bytearray(batch(2, [2], 3))
    bad[-5] ^= 1
    fetch, part = fetched([batch(0, [0, 1], 2), bad, batch(3, [3], 4)], 0), Records(0, 0)
    with pytest.raises(Exception, match="wrong CRC at or after offset 2"):
        unpack(fetch, part, 100)
    assert ([record.offset for record in part.records], part.next_) == ([0, 1], 2)
