"""Records into events, whatever they hold."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab import record as record_module
from dualstream_lab.event import Event, decode_event, encode_event, invalid_reason
from dualstream_lab.record import Decoder
from dualstream_lab.store import StoredEvent


@dataclass
class Record:
    value: bytes | None
    offset: int = 7
    timestamp: int = 1_700_000_000_000
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


texts = st.one_of(st.sampled_from(["repo", "push", "a/b", "ä", "*", "_x", "a b", ""]), st.text(max_size=8))


@given(
    st.fixed_dictionaries(
        {"id": texts, "type": texts, "source_type": texts, "source_id": texts},
        optional={
            "occurred_at": st.sampled_from(
                ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00", "noon", 3]
            ),
            "traceparent": st.sampled_from([f"00-{'a' * 32}-{'b' * 16}-01", "no", 1]),
            "data": st.none() | texts | st.integers(),
        },
    )
)
def test_it_takes_what_the_publisher_would_and_nothing_else(fields):
    value = msgspec.json.encode(fields)
    decode = Decoder()
    found = decode(3, Record(value))
    try:
        reason = invalid_reason(decode_event(value))
    except ValueError as error:
        reason = str(error)
    if reason is None:
        source = f"{fields['source_type']}:{fields['source_id']}"
        expected = (3, 7, fields["id"], fields["type"], source, 1_700_000_000_000_000_000, value)
        assert msgspec.structs.astuple(found) == expected
    else:
        assert isinstance(found, str)
    assert decode(3, Record(value)) == found, "the same the second time"


@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: b'{"id":"' + text.encode(errors="replace"))
)
def test_noise_has_a_reason(value):
    assert isinstance(Decoder()(0, Record(value)), str)


def test_nested_beyond_reason_is_not_an_event():
    value = b'{"id":"i","type":"t","source_type":"repo","source_id":"a/b","data":' + b"[" * 100_000
    assert "not an event" in Decoder()(0, Record(value))


@pytest.mark.parametrize(("ms", "ns"), [(-1, 0), (0, 0), (5, 5_000_000), (2**62, 9 * 10**18)])
def test_a_time_fits_the_store(ms, ns):
    event = Event(type="push", source_type="repo", source_id="a/b")
    assert Decoder()(0, Record(encode_event(event), timestamp=ms)).ts == ns


def test_what_is_kept_in_mind_is_bounded(monkeypatch):
    monkeypatch.setattr(record_module, "_MAX_NAMES", 10)
    decode = Decoder()
    for number in range(100):
        event = Event(type=f"t{number}", source_type="repo", source_id=f"a/{number}")
        assert isinstance(decode(0, Record(encode_event(event))), StoredEvent)
        assert len(decode._sources) <= 10
        assert len(decode._types) <= 10
