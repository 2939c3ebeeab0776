"""``dualstream topic``: the topics of the local stack, or of a Kafka that was named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dualstream_lab.cli.console import say, show_rows, show_table, stdout
from dualstream_lab.cli.options import PARTITION_COUNT, asking, assignment, together
from dualstream_lab.config import ServeSettings, Settings
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.kafka_log import connecting, open_admin, topics
from dualstream_lab.stack.destination import Destination, find_destination
from dualstream_lab.stack.settings import PARTITIONS, replication, topic_settings
from dualstream_lab.units import quantity

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

T = TypeVar("T")
_KEPT = {name: ServeSettings.model_fields[name].default for name in ("retention_age", "retention_bytes")}
_PAUSES = (0.1, 0.2, 0.4, 0.0)  # s: not every broker knows of a topic that was just made
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
    found = _administer(_destination(kafka, use_env).settings, topics.list_topics)
    rows = [{"topic": name, "partitions": size[0], "replicas": size[1]} for name, size in found.items()]
    _show(rows, rows, as_json=as_json)


@topic.command()
@click.argument("name")
@_kafka
@_as_json
def describe(name: str, kafka: str | None, use_env: bool, as_json: bool) -> int:
    """Describe topic NAME: where its partitions are, begin and end, and the settings that matter here.

    Warns of what contradicts "durable, replayable"; `dualstream serve` is taken to keep events for as long as
    it does by default. Exit code 1: Kafka does not say of each partition where it begins and ends.
    """
    found = _destination(kafka, use_env, name).settings
    _check_exists(found)
    info, (begins, ends, refused) = asyncio.run(topics.describe_topic(found))
    warnings = info.contradictions(**_KEPT)
    settings = {one: info.settings[one] for one in topics.SETTINGS if one in info.settings}
    partitions = [
        one._asdict() | {"earliest": begins.get(one.partition), "end": ends.get(one.partition)}
        for one in info.placements
    ]
    whole = {"topic": name, "partitions": partitions, "settings": settings, "warnings": warnings}
    _show(whole, partitions, as_json=as_json)
    if not as_json:
        show_rows(settings.items() or [("its settings", "are not shown to this user")], align="ll", left=1)
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
    name: str, partitions: int, replication_factor: int | None, given: tuple[tuple[str, str], ...],
    kafka: str | None, use_env: bool,
) -> None:  # fmt: skip
    """Create topic NAME. With three replicas two must have an event (min.insync.replicas), if not set."""

    async def work(admin: AIOKafkaAdminClient) -> str:
        factor = replication_factor or replication(len((await admin.describe_cluster())["brokers"]))
        configs = topic_settings(factor) | dict(given)
        await topics.create_topic(
            admin, name, partitions=partitions, replication_factor=factor, settings=configs
        )
        return f"{quantity(partitions, 'partition')}, {quantity(factor, 'replica')}"

    say(f"topic {name} is there: {_administer(_destination(kafka, use_env, name).settings, work)}")


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
    _check_exists(found.settings)
    ask = (lambda: True) if yes else asking(f"Delete topic {name} and all of its events?")
    if ask is None:
        raise ConfigError(f"topic {name} would be deleted with all of its events: give --yes if it may be")
    if not ask():
        raise ConfigError("nothing was deleted")
    _administer(found.settings, lambda admin: topics.delete_topic(admin, name))
    say(f"topic {name} is deleted")


def _destination(kafka: str | None, use_env: bool, name: str | None = None) -> Destination:
    """Find the Kafka that is meant, and say which. Raises ConfigError; StackError where there is none."""
    given = find_destination(kafka=kafka, redis=None, topic=name, use_env=use_env)
    if (found := given or Destination.running(name)) is None:
        start = "start one with `dualstream up --detach`, or give --kafka or --use-env"
        raise StackError(f"no local stack runs: {start}")
    say(f"Kafka {found.kafka} ({found.name})")
    return found


def _check_exists(settings: Settings) -> None:
    """Check that the topic exists. Raises ConfigError that names those like it."""

    async def look(admin: AIOKafkaAdminClient) -> dict[str, tuple[int, int]]:
        for pause in _PAUSES:
            if settings.topic in (names := await topics.list_topics(admin)):
                break
            await asyncio.sleep(pause)
        return names

    if settings.topic not in (names := _administer(settings, look)):
        near = get_close_matches(settings.topic, names, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "`dualstream topic list` names what there is"
        raise ConfigError(f"there is no topic {settings.topic!r}: {hint}")


def _administer(settings: Settings, work: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    """Do this as an administrator. Raises StreamUnavailable, and what it raises."""

    async def bounded() -> T:
        async with connecting(settings), open_admin(settings) as admin:
            return await work(admin)

    return asyncio.run(bounded())


def _show(whole: object, rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print it all as JSON, or the rows as a table."""
    if as_json:
        stdout.print(json.dumps(whole, indent=1))
    else:
        cells = (["-" if one in (None, []) else str(one).strip("[]") for one in row.values()] for row in rows)
        show_table("", [name.replace("_", " ") for name in (rows or [{"topic": ""}])[0]], cells, align="lr")
