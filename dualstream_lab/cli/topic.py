"""``dualstream topic``: the topics of the local stack, or of a Kafka that was named."""

from __future__ import annotations

import asyncio
import json
from difflib import get_close_matches
from typing import Any

import click

from dualstream_lab.cli.console import say, show_rows, show_table, stdout
from dualstream_lab.cli.options import PARTITION_COUNT, asking, assignment, together
from dualstream_lab.config import ServeSettings, Settings
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.kafka_log import connecting, open_admin
from dualstream_lab.kafka_log.topics import (
    SETTINGS,
    create_topic,
    delete_topic,
    describe_topic,
    list_topics,
)
from dualstream_lab.stack.destination import Destination, find_destination
from dualstream_lab.stack.settings import PARTITIONS, replication, topic_settings
from dualstream_lab.units import quantity

_KEPT = {name: ServeSettings.model_fields[name].default for name in ("retention_age", "retention_bytes")}
_kafka = together(
    click.option("--kafka", metavar="URL", help="Use your Kafka; left out, the running local stack."),
    click.option("--use-env", is_flag=True, help="Use the Kafka of DUALSTREAM_KAFKA_URL."),
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")


@click.group(epilog="Example:  dualstream topic create orders --partitions 12")
def topic() -> None:
    """List, describe, create and delete topics: of the running local stack, or of a Kafka that is named.

    Exit codes: 2 also where there is no such topic, where it exists already, and for what Kafka refuses.
    """


@topic.command("list")
@_kafka
@_as_json
def list_command(kafka: str | None, use_env: bool, as_json: bool) -> None:
    """List the topics, with partitions and replicas; Kafka's own are left out."""
    found = asyncio.run(_listed(_destination(kafka, use_env).settings))
    if as_json:
        rows = [{"topic": name, "partitions": size[0], "replicas": size[1]} for name, size in found.items()]
        stdout.print(json.dumps(rows, indent=1))
        return
    cells = [(name, *map(str, size)) for name, size in found.items()]
    show_table("", ("topic", "partitions", "replicas"), cells, align="lr")


@topic.command()
@click.argument("name")
@_kafka
@_as_json
def describe(name: str, kafka: str | None, use_env: bool, as_json: bool) -> int:
    """Describe topic NAME: where its partitions are, begin and end, and the settings that matter here.

    Warns of what contradicts "durable, replayable"; `dualstream serve` is taken to keep events for as long as
    it does by default. Exit code 1: Kafka does not say of each partition where it begins and ends.
    """
    settings = _destination(kafka, use_env, name).settings
    asyncio.run(_existing(settings))
    found = asyncio.run(describe_topic(settings))
    begins, ends, refused = found.bounds
    chosen = {one: found.info.settings[one] for one in SETTINGS if one in found.info.settings}
    warnings = found.info.contradictions(**_KEPT)
    partitions = [
        one._asdict() | {"earliest": begins.get(one.partition), "end": ends.get(one.partition)}
        for one in found.placements
    ]
    if as_json:
        whole = {"topic": name, "partitions": partitions, "settings": chosen, "warnings": warnings}
        stdout.print(json.dumps(whole, indent=1))
    else:
        columns = ("partition", "leader", "replicas", "in sync", "earliest", "end")
        show_table("", columns, (list(map(_cell, one.values())) for one in partitions), align="r")
        show_rows(chosen.items() or [("its settings", "are not shown to this user")], align="ll", left=1)
    for line in (*warnings, *(f"partition {one}: {reason}" for one, reason in refused.items())):
        say(f"topic {name}: {line}")
    return 1 if refused else 0


@topic.command()
@click.argument("name")
@click.option("--partitions", type=PARTITION_COUNT, default=PARTITIONS, help="Divide it into so many.")
@click.option("--replication-factor", type=click.IntRange(1, 32_767),
              help="Keep it on so many brokers.  [default: 3, or as many as there are]")  # fmt: skip
@click.option("--setting", "given", type=assignment, multiple=True, metavar="NAME=VALUE",
              help="Set a setting of Kafka's, such as retention.ms=86400000; may be repeated.")  # fmt: skip
@_kafka
def create(
    name: str, given: tuple[tuple[str, str], ...], kafka: str | None, use_env: bool, **size: Any
) -> None:
    """Create topic NAME. With three replicas two must have an event (min.insync.replicas), if not set."""
    settings = _destination(kafka, use_env, name).settings
    try:
        made = asyncio.run(_create(settings, dict(given), **size))
    except ConfigError as error:
        unknown = str(error).rpartition("Unknown topic config name: ")[2]
        if unknown not in dict(given):
            raise
        near = get_close_matches(unknown, SETTINGS, n=1) or SETTINGS
        raise ConfigError(f"{error}; there are, for example, {', '.join(near)}") from error
    say(f"topic {name} is there: {made}")


@topic.command()
@click.argument("name")
@_kafka
@click.option(
    "--yes", is_flag=True, help="Do not ask. Where there is no terminal, it is refused without this."
)
@click.option(
    "--target-is-mine", is_flag=True, help="Let it be deleted on brokers that are not the local stack."
)
def delete(name: str, kafka: str | None, use_env: bool, yes: bool, target_is_mine: bool) -> None:
    """Delete topic NAME with all of its events, for good."""
    found = _destination(kafka, use_env, name)
    if not (found.local or target_is_mine):
        raise ConfigError(
            "these are not the brokers of the local stack; if nobody else needs the topic, say so: "
            f"dualstream topic delete {name} … --target-is-mine"
        )
    asyncio.run(_existing(found.settings))
    if not yes:
        ask = asking(f"Delete topic {name} and all of its events?")
        if ask is None:
            raise ConfigError(
                f"topic {name} would be deleted with all of its events: give --yes if it may be"
            )
        if not ask():
            raise ConfigError("nothing was deleted")
    asyncio.run(_delete(found.settings))
    say(f"topic {name} is deleted")


def _destination(kafka: str | None, use_env: bool, name: str | None = None) -> Destination:
    """Find the Kafka that is meant, and say which. Raises ConfigError; StackError where there is none."""
    given = find_destination(kafka=kafka, redis=None, topic=name, use_env=use_env)
    if (found := given or Destination.running(name)) is None:
        raise StackError(
            "no local stack runs: start one with `dualstream up --detach`, or give --kafka or --use-env"
        )
    say(f"Kafka {found.kafka} ({found.name})")
    return found


async def _listed(settings: Settings) -> dict[str, tuple[int, int]]:
    async with connecting(settings), open_admin(settings) as admin:
        return await list_topics(admin)


async def _existing(settings: Settings) -> None:
    """Check that the topic exists. Raises ConfigError that names those like it."""
    if settings.topic not in (names := await _listed(settings)):
        near = get_close_matches(settings.topic, names, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "`dualstream topic list` names what there is"
        raise ConfigError(f"there is no topic {settings.topic!r}: {hint}")


async def _create(
    settings: Settings, given: dict[str, str], partitions: int, replication_factor: int | None
) -> str:
    """Create the topic; say how large it is."""
    async with connecting(settings), open_admin(settings) as admin:
        factor = replication_factor or replication(len((await admin.describe_cluster())["brokers"]))
        await create_topic(
            admin, settings.topic, partitions=partitions, replication_factor=factor,
            settings=topic_settings(factor) | given,
        )  # fmt: skip
    return f"{quantity(partitions, 'partition')}, {quantity(factor, 'replica')}"


async def _delete(settings: Settings) -> None:
    async with connecting(settings), open_admin(settings) as admin:
        await delete_topic(admin, settings.topic)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "-" if value in {None, -1} else str(value)
