"""History from Kafka: from an offset, a time or an id; never as a member of a group.

``selection``: where to begin, and which records are wanted. ``history``: a ``reading`` of the log, whose
records come in order of time, and where an id is. ``player``: what was chosen into a sink, at a rate, also
into another topic.
"""

from __future__ import annotations

from dualstream_lab.replay.history import find_event, read, replay
from dualstream_lab.replay.player import Player, Reject, Republish, Sink
from dualstream_lab.replay.reading import Reading
from dualstream_lab.replay.selection import LoggedEvent, Selection, Start, parse_positions, positions_text

__all__ = [
    "LoggedEvent",
    "Player",
    "Reading",
    "Reject",
    "Republish",
    "Selection",
    "Sink",
    "Start",
    "find_event",
    "parse_positions",
    "positions_text",
    "read",
    "replay",
]
