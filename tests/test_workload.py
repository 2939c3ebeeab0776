"""The plan is pure: seeds reproduce it, rates add up, sizes are met."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualstream_lab.errors import ConfigError
from dualstream_lab.event import encode_event, invalid_reason
from dualstream_lab.workload import ARRIVALS, RunIds, Workload
from dualstream_lab.workload.payloads import EVENT_TYPES, MAX_GITHUB_BYTES

RUN = UUID("0198f0a2-7b3c-7def-8123-456789abcdef")
NOON = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)

workloads = st.builds(
    Workload,
    rate=st.floats(1, 5_000),
    duration=st.floats(0.1, 2),
    arrivals=st.sampled_from(ARRIVALS),
    sources=st.integers(1, 300),
    zipf=st.floats(0, 3),
    payload=st.sampled_from(["small", "github"]),
    seed=st.integers(0, 2**32),
)


def columns(workload: Workload, chunk: int = 8192) -> dict[str, np.ndarray]:
    slots = list(workload.slots(chunk=chunk))
    names = ("intended", "source", "type", "size")
    return {n: np.concatenate([getattr(s, n) for s in slots] or [np.empty(0, np.int64)]) for n in names}


@given(workloads)
def test_the_plan_stays_within_its_duration_and_its_order(workload: Workload) -> None:
    intended = columns(workload)["intended"]
    assert np.all(np.diff(intended) >= 0)
    assert np.all((intended >= 0) & (intended < workload.duration * 1e9))
    if workload.arrivals == "constant":
        assert len(intended) == pytest.approx(workload.rate * workload.duration, abs=1)


@given(workloads, st.integers(1, 700))
def test_a_seed_gives_one_plan_however_it_is_cut(workload: Workload, chunk: int) -> None:
    whole, cut = columns(workload), columns(workload, chunk)
    for name, column in whole.items():
        # numpy draws exponentials and uniforms one by one, so that the cut cannot matter
        assert np.array_equal(column, cut[name]), name


def test_slots_are_numbered_without_holes() -> None:
    slots = list(Workload(rate=1000, duration=1).slots(chunk=300))
    assert [s.first for s in slots] == [0, 300, 600, 900]
    assert sum(map(len, slots)) == Workload(rate=1000, duration=1).expected == 1000


def test_another_seed_gives_another_plan_and_another_payload_does_not_move_the_sources() -> None:
    one, other = columns(Workload(seed=1)), columns(Workload(seed=2))
    assert not np.array_equal(one["source"], other["source"])
    big = columns(Workload(seed=1, payload="github"))
    assert np.array_equal(one["source"], big["source"])
    assert np.array_equal(one["type"], big["type"])


def test_poisson_arrivals_have_the_rate_and_the_spread_of_poisson() -> None:
    intended = columns(Workload(arrivals="poisson", rate=10_000, duration=20))["intended"]
    gaps = np.diff(intended) / 1e9
    assert len(intended) == pytest.approx(200_000, rel=0.02)
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.02)


def test_sources_follow_zipf() -> None:
    source = columns(Workload(sources=100, zipf=1.0))["source"]
    counts = np.bincount(source, minlength=100)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
    uniform = np.bincount(columns(Workload(sources=100, zipf=0))["source"])
    assert uniform.max() / uniform.min() < 1.2


@settings(max_examples=50)
@given(workloads, st.integers(256, 2000))
def test_events_are_valid_and_of_the_size_that_was_asked(workload: Workload, payload_bytes: int) -> None:
    fields = workload.as_dict() | {"payload_bytes": payload_bytes}
    workload = Workload(**fields)  # type: ignore[arg-type]
    catalogue = workload.catalogue(RunIds.of_run(RUN))
    slots = next(workload.slots(), None)
    if slots is None:
        return
    for index in range(0, len(slots), max(1, len(slots) // 5)):
        draws = (int(slots.source[index]), int(slots.type[index]), int(slots.size[index]))
        event = catalogue.event(slots.first + index, *draws, NOON)
        assert invalid_reason(event) is None
        value = encode_event(event)
        assert isinstance(msgspec.json.decode(value)["data"], dict)
        if workload.payload == "small":
            assert len(value) == payload_bytes
        else:
            assert len(bytes(event.data)) == draws[2] <= MAX_GITHUB_BYTES


def test_github_sizes_have_the_quantiles_of_webhooks() -> None:
    size = columns(Workload(payload="github"))["size"]
    assert size.min() >= 915
    assert np.quantile(size, [0.5, 0.95]) == pytest.approx([7741, 24621], rel=0.02)
    assert size.max() <= MAX_GITHUB_BYTES


def test_there_are_58_types_and_every_source_has_its_own_name() -> None:
    assert len(EVENT_TYPES) == len(set(EVENT_TYPES)) == 58
    sources = Workload(sources=20_000).catalogue(RunIds.of_run(RUN)).sources
    assert len(set(sources)) == 20_000
    assert {kind for kind, _ in sources} == {"repo", "user", "org"}


@given(st.uuids(), st.integers(0, 2**48 - 1))
def test_an_id_carries_its_number(run: UUID, seq: int) -> None:
    ids = RunIds.of_run(run)
    made = UUID(ids.of(seq))
    assert (made.version, made.variant) == (8, "specified in RFC 4122")
    assert ids.seq(str(made)) == seq


def test_ids_of_others_have_no_number() -> None:
    ids = RunIds.of_run(RUN)
    assert ids.seq(RunIds.of_run(UUID(int=7)).of(3)) is None
    assert ids.seq(ids.prefix + "not-hex-here") is None
    assert ids.seq("42") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("rate", 0), ("rate", float("nan")), ("duration", -1), ("sources", 0), ("zipf", -1), ("seed", -1),
     ("payload", "huge"), ("arrivals", "bursts"), ("payload_bytes", 10)],
)  # fmt: skip
def test_a_bad_field_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: must be"):
        Workload(**{field: value})  # type: ignore[arg-type]
