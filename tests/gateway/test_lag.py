"""How far the store is behind, in messages and in seconds, from samples."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.gateway import past
from dualstream_lab.gateway.past import Lag


def test_the_time_is_since_the_log_first_had_what_the_store_lacks():
    lag = Lag()
    lag.sample(10, {0: 100}, {0: 100})
    assert (lag.messages, lag.seconds(0)) == ({0: 0}, 0)
    lag.sample(11, {0: 150}, {0: 100})
    assert (lag.messages, lag.seconds(0)) == ({0: 50}, 0)
    lag.sample(14, {0: 300}, {0: 120})
    assert (lag.messages, lag.seconds(0)) == ({0: 180}, 3)
    lag.sample(15, {0: 300}, {0: 150})  # what came at 11 is there; what is lacking came at 14
    assert (lag.messages, lag.seconds(0)) == ({0: 150}, 1)
    lag.sample(16, {0: 300}, {0: 300})
    assert (lag.messages, lag.seconds(0)) == ({0: 0}, 0)


def test_a_store_that_moves_and_never_comes_there_is_only_as_late_as_it_is():
    """Under steady load it is always behind by something."""
    lag = Lag()
    for second in range(1000):
        lag.sample(second, {0: 100 * second}, {0: 100 * second - 150})
    assert lag.messages == {0: 150}
    assert lag.seconds(0) == 1


def test_partitions_are_apart_and_a_new_one_begins_at_nothing():
    lag = Lag()
    lag.sample(1, {0: 5, 1: 5}, {0: 5})
    lag.sample(9, {0: 5, 1: 5, 2: 1}, {0: 5})
    assert lag.messages == {0: 0, 1: 5, 2: 1}
    assert [lag.seconds(partition) for partition in range(4)] == [0, 8, 0, 0]
    assert lag.longest(range(4)) == 8
    lag.forget()
    assert (lag.messages, lag.longest(range(4))) == ({}, 0)


def test_one_that_stands_still_for_ever_needs_no_memory():
    lag = Lag()
    for second in range(5000):
        lag.sample(second, {0: second}, {})
    assert lag.seconds(0) == 4998
    assert len(lag._marks[0]) == past._MARKS


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30)), max_size=40))
def test_it_is_what_a_look_at_all_samples_finds(steps):
    lag, samples, end, position = Lag(), [], 0, 0
    for now, (more, moved) in enumerate(steps):
        end += more
        position = min(end, position + moved)
        samples.append((now, end))
        lag.sample(now, {0: end}, {0: position})
        had = [at for at, reached in samples if reached > position]
        assert lag.seconds(0) == (now - had[0] if had else 0)
        assert lag.messages[0] == end - position
