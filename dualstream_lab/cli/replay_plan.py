"""What a call of ``dualstream replay`` asks for, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import click

from dualstream_lab.cli.console import stdout
from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError
from dualstream_lab.lab.streams import source_of
from dualstream_lab.replay import Selection, Start, parse_positions
from dualstream_lab.stack.where import find_settings

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``until`` is in ms since the epoch. ``target``: the settings of the publisher, where there is one."""

    settings: Settings
    start: Start
    event_id: str | None
    until: int | None
    follow: bool
    selection: Selection
    limit: int | None
    rate: float | None
    output: str | None
    target: Settings | None
    rejects: Path | None

    @classmethod
    def of(
        cls,
        *,
        since: float | None,
        offset: int | None,
        event_id: str | None,
        positions: str | None,
        until: float | None,
        limit: int | None,
        follow: bool,
        source: str | None,
        pattern: str | None,
        types: tuple[str, ...],
        rate: float | None,
        output: str | None,
        to_topic: str | None,
        announce: bool,
        rejects: Path | None,
        **where: str | None,
    ) -> Self:
        """From the options. Raises UsageError, ConfigError and StackError."""
        if sum(value is not None for value in (since, offset, event_id, positions)) != 1:
            raise click.UsageError(
                "say where to begin: --since 10m, --offset 0 (all that is kept), --id ID or --from P:O,…"
            )
        _exclusive("--source", source, "--pattern", pattern)
        _exclusive("--output", output, "--to-topic", to_topic)
        _exclusive("--follow", follow or None, "--until", until)
        if announce and to_topic is None:
            raise click.UsageError("--announce needs --to-topic")
        if source is not None:
            source_of(source)
        start = Start(
            offset=offset,
            timestamp=_ms(since),
            positions=None if positions is None else parse_positions(positions),
        )
        settings = find_settings(Settings, **where)
        return cls(
            settings=settings,
            start=start,
            event_id=event_id,
            until=_ms(until),
            follow=follow,
            selection=Selection(source=source, pattern=pattern, types=types),
            limit=limit,
            rate=rate,
            output=output,
            target=None if to_topic is None else _target(settings, to_topic, announce=announce),
            rejects=rejects,
        )

    @property
    def goes_on(self) -> bool:
        """Whether it is the rest of an earlier one."""
        return self.start.positions is not None

    @property
    def for_people(self) -> bool:
        """Whether events go to a terminal."""
        return self.target is None and self.output is None and stdout.is_terminal


def _exclusive(one: str, its: object, other: str, others: object) -> None:
    if its is not None and others is not None:
        raise click.UsageError(f"{one} and {other} exclude each other")


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _target(settings: Settings, topic: str, *, announce: bool) -> Settings:
    """Where to publish: the same Kafka, another topic, and Redis only if it is to be announced."""
    if topic == settings.topic:
        raise ConfigError(
            f"--to-topic {topic} is the topic that is read: what is written would be read again"
        )
    if announce and settings.redis_url is None:
        raise ConfigError("--announce: no Redis is given; set --redis (DUALSTREAM_REDIS_URL)")
    there = Settings.load(kafka_url=settings.kafka_url, topic=topic)
    return there.model_copy(update={"redis_url": settings.redis_url if announce else None})
