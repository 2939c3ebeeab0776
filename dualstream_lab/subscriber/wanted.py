"""What the caller of a Subscriber asks for, checked before anything is connected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from yarl import URL

from dualstream_lab.cursor import Cursor
from dualstream_lab.errors import ConfigError, EventError
from dualstream_lab.event import source_invalid_reason

EARLIEST: Final = "earliest"
LATEST: Final = "latest"


def checked_url(url: str) -> URL:
    """The gateway's base URL. Raises ConfigError."""
    allowed = "allowed: http://host:port or https://host:port, and a path before the gateway's own"
    if "@" in str(url):  # nothing of it is repeated, here or by a parser that takes a password for a port
        raise ConfigError(f"url: no user and password; give the gateway's token as token=…; {allowed}")
    try:
        base = URL(url)
        port = base.port
    except (ValueError, TypeError) as error:
        raise ConfigError(f"url {url!r}: {error}; {allowed}") from error
    if base.scheme not in {"http", "https"} or not base.host or not port or base.query or base.fragment:
        raise ConfigError(f"url {url!r} is not a gateway's; {allowed}")
    return base


def checked_sources(source: str | None, sources: Sequence[str]) -> tuple[str, ...]:
    """The sources that are asked for, each once. Raises ConfigError."""
    wanted = tuple(dict.fromkeys([*([] if source is None else [source]), *sources]))
    if not wanted:
        raise ConfigError('source: name at least one, for example source="repo:owner/name"')
    for name in wanted:
        source_type, colon, source_id = name.partition(":")
        reason = source_invalid_reason(source_type, source_id) if colon else "it must be type:id"
        if reason is not None:
            raise ConfigError(f"source {name!r}: {reason}; for example repo:owner/name")
    return wanted


def checked_since(since: str | Mapping[str, str], sources: Sequence[str]) -> dict[str, str]:
    """Where each source begins. Raises ConfigError."""
    if isinstance(since, Mapping):
        places = {source: since.get(source, LATEST) for source in sources}
    else:
        places = dict.fromkeys(sources, since)
    for source, place in places.items():
        if place in {EARLIEST, LATEST}:
            continue
        try:
            Cursor.parse(place)
        except (EventError, TypeError) as error:
            allowed = f"a cursor, {EARLIEST!r} or {LATEST!r} is allowed"
            raise ConfigError(f"since {place!r} (of {source}): {allowed}") from error
        if len(sources) > 1 and not isinstance(since, Mapping):
            raise ConfigError("since: a cursor is of one source; for several give {source: cursor}")
    return places
