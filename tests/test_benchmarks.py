"""The benchmark's arithmetic, and that its peers run."""

from __future__ import annotations

import pytest

from benchmarks.compression import CODECS, Sizes
from benchmarks.compression import markdown as compression_table
from benchmarks.peer import PEERS, NotRun, Peer, Result
from benchmarks.peers.common import Task
from benchmarks.table import Figures, Sample, markdown, put
from dualstream_lab.event import encode_event


def test_ratios_are_paired_by_round():
    figures = Figures()
    for turn, (ours, naive) in enumerate([(60, 10), (80, 20), (100, 10)]):
        figures.add("batches of 1000", "ours", turn, Sample(rate=ours))
        figures.add("batches of 1000", "naive Python", turn, Sample(rate=naive))
    figures.add("batches of 1000", "ours", 3, Sample(rate=1000))  # its pair was not run
    assert figures.ratio("batches of 1000", "ours", "naive Python") == [4, 6, 10]
    text = markdown(figures, shapes=["batches of 1000"], peers=["ours", "naive Python"])
    assert "| ours / naive Python | batches of 1000 | **6.00** | 4.00 to 10.00 | 3 | ≥ 7 |" in text


def test_a_peer_that_could_not_run_is_shown_so():
    figures = Figures()
    cpu = {"client": 3.04, "Kafka": 2.0, "Redis": 1.0}
    figures.add("batches of 1000", "ours", 0, Sample(rate=60, cpu=cpu, ping=1.5))
    figures.reasons["batches of 1000", "Go, tuned"] = "there is no Go compiler"
    text = markdown(figures, shapes=["batches of 1000"], peers=["ours", "Go, tuned"])
    assert "| ours / Go, tuned | batches of 1000 | not run" in text
    assert "| Go, tuned | not run (there is no Go compiler) |" in text
    assert "| ours | 3.0 + 2.0 + 1.0 |" in text
    assert "| ours | 1.50 |" in text


@pytest.mark.parametrize(("acked", "notified", "dropped"), [(99, 100, 0), (100, 99, 0), (100, 100, 1)])
def test_a_run_with_anything_missing_is_void(acked, notified, dropped):
    result = Result(acked=acked, notified=notified, dropped=dropped, seconds=1, cpu=1)
    with pytest.raises(NotRun, match="void"):
        result.rate(100, redis=True)


def test_the_table_goes_between_its_markers_only():
    text = "a\n<!-- bench:memory:begin -->\nold\n<!-- bench:memory:end -->\nb\n"
    done = "a\n<!-- bench:memory:begin -->\nnew\n<!-- bench:memory:end -->\nb\n"
    assert put(text, "memory", "new") == done
    with pytest.raises(ValueError, match="bench:outage:begin"):
        put(text, "outage", "new")


def test_codecs_are_compared_round_by_round():
    sizes = Sizes()
    for factor in (1, 2, 3):
        for codec in CODECS:
            sizes.add(codec, 100 * factor * (2 if codec == "zstd" else 1), 60 if codec == "zstd" else 300)
    table = compression_table({300: sizes})
    assert "| codec | 300 B: bytes an event | events/s | to none |" in table
    assert "| zstd | 60 | 400 | 2.00 |" in table
    assert "| none | 300 | 200 | 1.00 |" in table


def test_varied_events_have_their_size_and_differ():
    for size in (300, 8000):
        made = Task("k", None, "t", batch=1, in_flight=1, size=size, events=200, varied=True).make()
        values = [encode_event(event) for event in made]
        assert all(0.85 * size < len(value) < 1.05 * size for value in values)
        assert len({bytes(event.data) for event in made}) == len(made)


@pytest.mark.parametrize(
    "name", ["ours", "ours without Redis", "bound", "bound without Redis", "naive Python"]
)
@pytest.mark.parametrize("batch", [100, 0])
def test_a_peer_sends_and_announces_every_event(stack, topic, name, batch):
    peer: Peer = PEERS[name]
    task = {"kafka": stack.kafka_url, "redis": stack.redis_url if peer.redis else None, "topic": topic}
    task |= {"batch": batch, "in_flight": 4, "size": 300, "events": 2000}
    assert peer.run(task).rate(2000, redis=peer.redis) > 0
