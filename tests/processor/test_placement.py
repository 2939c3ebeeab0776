"""Events that another partitioner put somewhere are counted, and a warning names the one to use. Pure."""

from __future__ import annotations

from dualstream_lab.kafka_log import partition_of
from dualstream_lab.processor.batch import Placement
from dualstream_lab.record import StoredEvent

SOURCE = "repo:o/x"


def events(partition: int, count: int, source: str = SOURCE) -> list[StoredEvent]:
    return [StoredEvent(partition, offset, f"{offset}", "t", source, 0, b"{}") for offset in range(count)]


def test_what_is_where_a_publisher_puts_it_is_not_counted(caplog):
    placement = Placement("events")
    for partitions in (6, 9):  # also where it was before partitions were added
        home = partition_of(SOURCE, partitions)
        placement.note(home, events(home, 3), 9)
    assert (placement.misplaced, caplog.text) == (0, "")


def test_what_is_elsewhere_is_counted_and_warned_of_once(caplog):
    placement = Placement("events")
    homes = {partition_of(SOURCE, count) for count in range(1, 10)}
    elsewhere = min(set(range(9)) - homes)
    home = partition_of("repo:o/y", 9)
    for _ in range(3):
        placement.note(elsewhere, events(elsewhere, 2), 9)
        placement.note(home, events(home, 5, "repo:o/y"), 9)
    assert placement.misplaced == 6
    assert caplog.text.count("murmur2_random") == 1
