"""The benchmark's arithmetic, and that its peers run."""

from __future__ import annotations

import pytest

from benchmarks.peer import PEERS, NotRun, Peer, Result
from benchmarks.table import Figures, markdown, put


def test_ratios_are_paired_by_round():
    figures = Figures()
    for turn, (ours, naive) in enumerate([(60, 10), (80, 20), (100, 10)]):
        figures.add("batches of 1000", "ours", turn, ours)
        figures.add("batches of 1000", "naive Python", turn, naive)
    figures.add("batches of 1000", "ours", 3, 1000)  # its pair was not run
    assert figures.ratio("batches of 1000", "ours", "naive Python") == [4, 6, 10]
    text = markdown(figures, shapes=["batches of 1000"], peers=["ours", "naive Python"])
    assert "| ours / naive Python | batches of 1000 | **6.00** | 4.00 to 10.00 | 3 | ≥ 6 |" in text


def test_a_peer_that_could_not_run_is_shown_so():
    figures = Figures()
    figures.add("batches of 1000", "ours", 0, 60)
    figures.reasons["batches of 1000", "Go, tuned"] = "there is no Go compiler"
    text = markdown(figures, shapes=["batches of 1000"], peers=["ours", "Go, tuned"])
    assert "| ours / tuned Go | batches of 1000 | not run" in text
    assert "| Go, tuned | not run (there is no Go compiler) |" in text


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


@pytest.mark.parametrize("name", ["ours", "ours without Redis", "naive Python"])
@pytest.mark.parametrize("batch", [100, 0])
def test_a_peer_sends_and_announces_every_event(stack, topic, name, batch):
    peer: Peer = PEERS[name]
    task = {"kafka": stack.kafka_url, "redis": stack.redis_url if peer.redis else None, "topic": topic}
    task |= {"batch": batch, "in_flight": 4, "size": 300, "events": 2000}
    assert peer.run(task).rate(2000, redis=peer.redis) > 0
