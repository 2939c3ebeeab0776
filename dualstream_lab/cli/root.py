"""The ``dualstream`` group: which commands there are, and what their errors mean to the shell."""

from __future__ import annotations

import difflib
import logging
from importlib import import_module
from importlib.metadata import version

import click

from dualstream_lab.cli.console import say
from dualstream_lab.cli.exit_codes import INTERRUPTED, UNAVAILABLE, USAGE
from dualstream_lab.errors import ConfigError, DualStreamError, EventError
from dualstream_lab.stack.destination import with_origins

# Of each command the extra that it needs, and its line in the help (so that --help imports little).
_SECTIONS = {
    "Brokers": {
        "up": ("stack", "Start a real Kafka and a real Valkey on this machine."),
        "status": ("stack", "Show the running local stack."),
        "down": ("stack", "End the running local stack."),
        "topic": ("cli", "List, describe, create and delete Kafka topics."),
    },
    "Events": {
        "publish": ("cli", "Publish a file of events: Kafka first, then Redis."),
        "tail": ("cli", "Watch notifications on Redis, or whole events on Kafka."),
        "replay": ("cli", "Events of the log again: to look at, into a file, or to another topic."),
        "serve": ("stack,gateway", "Serve: events in over HTTP, out to WebSocket and SSE clients."),
    },
    "Load": {
        "demo": ("stack,report", "Both streams at work through a Redis outage, on brokers of its own."),
        "smoke": ("stack,load", "Both streams for 30 s at 10,000 events/s, with a verdict: for CI."),
        "run": ("stack,load", "Run a scenario: load, faults on a schedule, thresholds."),
        "find-rate": ("stack,load", "The highest rate that holds, and what saturated."),
        "chaos": ("stack,load", "Run a scenario with faults; list them; mend what a crash has left."),
    },
    "Proofs": {
        "prove": ("stack,report", "Prove that Redis trouble never fails or slows a publish; yours, too."),
        "check-gateway": ("stack,load,gateway", "Whether a gateway's clients lose events."),
    },
    "Runs": {
        "runs": ("load", "List recorded runs, or show one."),
        "report": ("report", "One run as a page, for somebody who was not there; or as Markdown."),
        "ledger": ("load", "What became of each event of a run, and how faults were got over."),
        "compare": ("report", "What really changed between runs, or repeats of them; for CI, too."),
    },
    "Model": {
        "simulate": ("simulation", "A scenario on the model: any number of each part, in seconds."),
        "plan": ("simulation", "How many of each part a rate and an audience need; simulated."),
        "decide": ("simulation", "Kafka, Redis or both: which stream an event belongs on, and why."),
        "calibrate": ("simulation", "What each step costs here, from runs; and how well that predicts."),
    },
}
# Of a command that is in another's.
_MODULES = {"up": "stack", "status": "stack", "down": "stack", "smoke": "run", "find_rate": "run",
            "report": "runs", "decide": "plan"}  # fmt: skip
_COMMANDS = {name: command for section in _SECTIONS.values() for name, command in section.items()}


class _Commands(click.Group):
    """The group of all commands, each of which is imported only when it is called."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS and (near := difflib.get_close_matches(args[0], _COMMANDS, n=2)):
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {' or '.join(near)}?", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        module = import_module(f"dualstream_lab.cli.{_MODULES.get(name, name)}")
        command: click.Command = getattr(module, name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in commands.items()])


@click.group(
    cls=_Commands,
    epilog="Start with:  dualstream up --detach   then   dualstream publish FILE",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.version_option(version("dualstream-lab"), prog_name="dualstream")
@click.option("-v", "--verbose", is_flag=True, help="Show what the clients log.")
def _dualstream(verbose: bool) -> None:
    """Durable events on Kafka, live notifications on Redis Pub/Sub.

    Where to: --kafka/--redis, else DUALSTREAM_KAFKA_URL and DUALSTREAM_REDIS_URL, else the local stack
    that `dualstream up` runs. Exit codes: 0 good, 1 some of it bad, 2 misuse, 3 a broker or file is
    missing, 4 a proof is inconclusive, 99 a threshold was missed, 130 interrupted.
    """
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(message)s")
    logging.getLogger("dualstream_lab").setLevel(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        # Its retries during an outage are ours to sum up.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def run(arguments: list[str]) -> int:
    """Run a command line, and return its exit code."""
    try:
        result = _dualstream.main(arguments, prog_name="dualstream", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return USAGE
    except DualStreamError as error:
        say(f"error: {with_origins(str(error), arguments)}")
        return USAGE if isinstance(error, (ConfigError, EventError)) else UNAVAILABLE
    except ModuleNotFoundError as error:
        command = next((word for word in arguments if word in _COMMANDS), None)
        if command is None or (error.name or "").startswith("dualstream_lab"):
            raise
        extra = _COMMANDS[command][0]
        say(f"error: `dualstream {command}` needs {error.name}: pip install 'dualstream-lab[{extra}]'")
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        return INTERRUPTED
    except SystemExit as ended:  # click's way to say that the reader of our output has left: `… | head`
        if isinstance(ended.__context__, BrokenPipeError):
            return 0
        raise
    return result if isinstance(result, int) else 0
