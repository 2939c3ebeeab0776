"""``dualstream serve``: the delivery side."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click
import uvloop

from dualstream_lab.cli.console import say
from dualstream_lab.cli.options import brokers
from dualstream_lab.config import ServeSettings
from dualstream_lab.lab.serve import PARTS, put_store_away
from dualstream_lab.lab.serve import serve as run_parts
from dualstream_lab.stack import LocalStack, running_stack
from dualstream_lab.stack.destination import places

_NEXT = {
    "gateway": """\
watch:    {url}/            in a browser;  or  curl -N '{url}/sse?source=repo:octo/hello'""",
    "ingester": """\
publish:  curl {url}/ingest -H 'Content-Type: application/json' \\
            -d '{{"type":"push","source_type":"repo","source_id":"octo/hello","data":{{"ref":"main"}}}}'""",
}


@click.command(
    epilog="Example:  dualstream serve   and, elsewhere,   curl -N 'http://127.0.0.1:8080/sse?source=repo:octo/hello'"
)
@click.option(
    "--only", multiple=True, type=click.Choice(PARTS),
    help="Serve this part alone (may be repeated).  [default: all]",
)  # fmt: skip
@click.option(
    "--listen", metavar="HOST:PORT", help="Listen here (DUALSTREAM_LISTEN).  [default: 127.0.0.1:8080]"
)
@click.option(
    "--store",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep recent events in this SQLite file (DUALSTREAM_STORE).",
)
@click.option(
    "--upstream",
    type=click.Choice(["source", "aggregate", "pattern"]),
    help="Subscribe on Redis by source, by shard channel, or once for all.",
)
@brokers
@click.option(
    "--rebuild-store",
    is_flag=True,
    help="Move the store away (NAME.before-1), and fill a new one with what Kafka has.",
)
def serve(only: Sequence[str], rebuild_store: bool, **given: object) -> int:
    """Serve: events in over HTTP, out to WebSocket and SSE clients, live and without a gap.

    \b
    ingester   POST /ingest, /ingest/github -> Kafka, and a notification on Redis
    processor  Kafka -> the store of recent events (a consumer group: start as many as you like)
    gateway    GET /ws, /sse, /events, /event, a live page at /, /metrics, /openapi.json

    On the brokers given, else on the local stack that runs, else on one of its own: what it uses is said.
    Everything else is a DUALSTREAM_… variable: docs/reference/settings.md.
    """
    settings = ServeSettings.load(**given)
    with ExitStack() as exits:
        if settings.kafka_url is None:
            stack = running_stack() or exits.enter_context(LocalStack(progress=say, topic=settings.topic))
            local = {"kafka_url": stack.kafka_url, "redis_url": settings.redis_url or stack.redis_url}
            settings = ServeSettings.load(**given | local)
            if "store" not in settings.model_fields_set:  # it lives and dies with the stack
                store = Path(stack.directory) / "dualstream.db"
                settings = settings.model_copy(update={"store": store})
        return _run(settings, only or PARTS, rebuild=rebuild_store)


_SWITCH_INTERVAL: Final = 0.001  # s that the store's threads may keep the loop waiting


def _run(settings: ServeSettings, parts: Sequence[str], *, rebuild: bool) -> int:
    if rebuild and (moved := put_store_away(settings, parts)):
        say(f"the old store is {moved} now; a new one is filled with what Kafka has")

    def started(url: str) -> None:
        say(f"serving {', '.join(parts)} on {places(settings)}; store {settings.store}")
        for part in (part for part in _NEXT if part in parts):
            say(_NEXT[part].format(url=url))
        say("Ctrl-C ends it.")

    async def main() -> int:
        until = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, until.set)
        await run_parts(settings, parts, started=started, until=until)
        say("ended")
        return 0

    sys.setswitchinterval(_SWITCH_INTERVAL)
    return uvloop.run(main())
