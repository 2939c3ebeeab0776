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
from dualstream_lab.workload import PAYLOADS, PLANS, RunIds, Workload
from dualstream_lab.workload.payloads import EVENT_TYPES, MAX_GITHUB_BYTES

RUN = UUID("0198f0a2-7b3c-7def-8123-456789abcdef")
NOON = datetime(2025, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)

OPEN_PLANS = [plan for plan in PLANS if plan != "closed"]

workloads = st.builds(
    Workload,
    rate=st.floats(1, 5_000),
    duration=st.floats(0.1, 2),
    plan=st.sampled_from(OPEN_PLANS),
    low=st.floats(0, 1),
    period=st.floats(0.1, 3),
    steps=st.integers(1, 7),
    batch=st.integers(1, 12),
    sources=st.integers(5, 300),
    zipf=st.floats(0, 3),
    hot=st.floats(0, 1),
    hot_sources=st.integers(1, 5),
    payload=st.sampled_from(PAYLOADS),
    seed=st.integers(0, 2**32),
)


def columns(workload: Workload, chunk: int = 8192, share: tuple[int, int] = (0, 1)) -> dict[str, np.ndarray]:
    slots = list(workload.slots(chunk=chunk, share=share))
    names = ("seq", "intended", "source", "type", "size")
    return {n: np.concatenate([getattr(s, n) for s in slots] or [np.empty(0, np.int64)]) for n in names}


@given(workloads)
def test_the_plan_stays_within_its_duration_and_its_order(workload: Workload) -> None:
    intended = columns(workload)["intended"]
    assert np.all(np.diff(intended) >= 0)
    assert np.all((intended >= 0) & (intended < workload.duration * 1e9))
    if workload.plan != "poisson":
        assert len(intended) == pytest.approx(workload.expected, abs=workload.batch + 1)


@given(workloads, st.integers(1, 700))
def test_a_seed_gives_one_plan_however_it_is_cut(workload: Workload, chunk: int) -> None:
    whole, cut = columns(workload), columns(workload, chunk)
    for name, column in whole.items():
        # numpy draws exponentials and uniforms one by one, so that the cut cannot matter
        assert np.array_equal(column, cut[name]), name


@given(workloads, st.integers(1, 5), st.integers(1, 700))
def test_shares_lose_and_repeat_nothing(workload: Workload, of: int, chunk: int) -> None:
    whole = columns(workload)
    shares = [columns(workload, chunk, (index, of)) for index in range(of)]
    order = np.argsort(np.concatenate([share["seq"] for share in shares]))
    for name, column in whole.items():
        assert np.array_equal(np.concatenate([share[name] for share in shares])[order], column), name
    for share in shares:
        assert np.all(np.diff(share["intended"]) >= 0)


def test_a_share_is_one_of_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="share 2 of 2"):
        next(Workload().slots(share=(2, 2)))


def test_slots_are_numbered_without_holes() -> None:
    seq = columns(Workload(rate=1000, duration=1), chunk=300)["seq"]
    assert np.array_equal(seq, np.arange(1000))
    assert Workload(rate=1000, duration=1).expected == 1000


@pytest.mark.parametrize(
    ("plan", "more", "counts"),
    [
        ("constant", {}, [100, 100, 100, 100]),
        # 0 to 100/s over 4 s: 12.5, 37.5, 62.5, 87.5
        ("ramp", {"low": 0.0}, [13, 37, 63, 87]),
        ("step", {"steps": 4}, [25, 50, 75, 100]),
        # a fifth of a second at 100/s, the rest at half of it
        ("burst", {"low": 0.5, "period": 1.0}, [60, 60, 60, 60]),
        ("burst", {"low": 0.0, "period": 2.0}, [40, 0, 40, 0]),
        # the trough is at 0 and 4, the crest at 2: 50 -+ 50 * 2/pi
        ("sine", {"low": 0.0, "period": 4.0}, [18, 82, 82, 18]),
    ],
)  # fmt: skip
def test_plans_have_the_rates_of_their_shape(plan: str, more: dict[str, float], counts: list[int]) -> None:
    workload = Workload(rate=100, duration=4, plan=plan, batch=1, **more)  # type: ignore[arg-type]
    intended = columns(workload)["intended"] / 1e9
    found, _ = np.histogram(intended, [0, 1, 2, 3, 4])
    assert list(found) == pytest.approx(counts, abs=1)
    assert workload.expected == pytest.approx(sum(counts), abs=2)
    middle = np.arange(0.005, 4, 0.01)
    in_all = workload.intended_rate(middle).sum() * 0.01
    assert in_all == pytest.approx(sum(counts), rel=0.01)


def test_a_batch_falls_due_at_once() -> None:
    intended = columns(Workload(rate=1000, duration=1, batch=100))["intended"]
    assert list(np.unique(intended, return_counts=True)[1]) == [100] * 10


def test_a_closed_plan_never_ends_and_has_no_times() -> None:
    slots = Workload(plan="closed", batch=10).slots(chunk=100)
    for first in range(0, 1000, 100):
        part = next(slots)
        assert not part.intended.any()
        assert part.seq[0] == first


def test_another_seed_gives_another_plan_and_another_payload_does_not_move_the_sources() -> None:
    one, other = columns(Workload(seed=1)), columns(Workload(seed=2))
    assert not np.array_equal(one["source"], other["source"])
    big = columns(Workload(seed=1, payload="github"))
    assert np.array_equal(one["source"], big["source"])
    assert np.array_equal(one["type"], big["type"])


def test_poisson_arrivals_have_the_rate_and_the_spread_of_poisson() -> None:
    intended = columns(Workload(plan="poisson", rate=10_000, duration=20, batch=1))["intended"]
    gaps = np.diff(intended) / 1e9
    assert len(intended) == pytest.approx(200_000, rel=0.02)
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.02)


def test_sources_follow_zipf() -> None:
    source = columns(Workload(sources=100, zipf=1.0))["source"]
    counts = np.bincount(source, minlength=100)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
    uniform = np.bincount(columns(Workload(sources=100, zipf=0))["source"])
    assert uniform.max() / uniform.min() < 1.2


def test_a_hot_set_has_its_share() -> None:
    source = columns(Workload(sources=100, zipf=0, hot=0.9, hot_sources=3))["source"]
    counts = np.bincount(source, minlength=100)
    assert counts[:3].sum() / len(source) == pytest.approx(0.9, abs=0.01)
    assert counts[:3].max() / counts[:3].min() < 1.05


def event_of(catalogue, seq: int, source: int, kind: int, size: int):
    (event,) = catalogue.events([seq], [source], [kind], [size], NOON)
    return event


def test_log_normal_sizes_have_their_median_and_spread() -> None:
    size = columns(Workload(payload="lognormal", payload_bytes=20_000))["size"]
    assert np.median(size) == pytest.approx(20_000, rel=0.03)
    assert np.std(np.log(size[(size > 256) & (size < 900_000)])) == pytest.approx(1, abs=0.05)


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
        event = event_of(catalogue, int(slots.seq[index]), *draws)
        smallest = len(encode_event(event_of(catalogue, int(slots.seq[index]), *draws[:2], 0)))
        assert invalid_reason(event) is None
        value = encode_event(event)
        assert isinstance(msgspec.json.decode(value)["data"], dict)
        if workload.payload == "fixed":
            assert len(value) == payload_bytes
        elif workload.payload == "lognormal":
            assert len(value) == max(draws[2], smallest)
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
     ("payload", "huge"), ("plan", "bursts"), ("payload_bytes", 10), ("low", 2), ("steps", 0), ("batch", 0),
     ("rate", "fast"), ("sources", 1.5), ("hot_sources", 501), ("period", 0), ("hot", True)],
)  # fmt: skip
def test_a_bad_field_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: must be"):
        Workload(**{field: value})  # type: ignore[arg-type]


def test_an_unknown_key_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'rat'; known: rate, duration, plan"):
        Workload.load({"rat": 5})
