"""Events for a store."""

from __future__ import annotations

import time

from dualstream_lab.store import StoredEvent

NOW = time.time_ns() // 10**6 * 10**6
HOUR = 3600.0  # ages are in hours: a whole run of the tests does not take as long
SOURCES = ("repo:a/b", "repo:a/c", "repo:ä/ö")


def event(offset, *, partition=0, name=None, source=SOURCES[0], hours=0, value=None):
    """An event ``hours`` old; its id says where it is, if it has no other."""
    return StoredEvent(
        partition=partition,
        offset=offset,
        id=name or f"id-{partition}-{offset}",
        type="push",
        source=source,
        ts=NOW - round(hours * HOUR * 1e9),
        value=value if value is not None else b'{"n":%d}' % offset,
    )
