"""Where a test's load goes: never to brokers that nobody named, and never without saying so."""

from __future__ import annotations

import sys
from argparse import Namespace

from dualstream_lab.stack import LocalStack
from dualstream_lab.stack.destination import Destination, find_destination
from dualstream_lab.stack.settings import TOPIC


class Destinations:
    """Of the tests of one master, or of one process that is alone: the web UI may name others each time."""

    def __init__(self) -> None:
        self._stack: LocalStack | None = None
        self._agreed: set[str] = set()

    def find(self, given: Namespace, *, may_ask: bool) -> Destination:
        """What the options say; where they do not, the running local stack, or one that lives until
        :meth:`close`. It is said, and asked for if that may be somebody else's and somebody can be asked.

        Raises ConfigError, also for a "no"; StackError.
        """
        topic = given.topic or None
        found = find_destination(
            kafka=given.kafka or None, redis=given.redis or None, topic=topic, use_env=given.use_env
        )
        found = found or Destination.running(topic) or self._own(topic)
        if (text := str(found)) not in self._agreed:
            print(f"load goes to {text}", file=sys.stderr)
            can_ask = sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()
            if not given.yes:
                found.agree(_ask if may_ask and can_ask else None)
            self._agreed.add(text)
        return found

    def _own(self, topic: str | None) -> Destination:
        if self._stack is None:
            stack = LocalStack(topic=topic or TOPIC, progress=lambda line: print(line, file=sys.stderr))
            stack.start()
            self._stack = stack
        return Destination.of(self._stack, topic)

    def close(self) -> None:
        """End the stack of its own."""
        if self._stack is not None:
            self._stack.stop()
            self._stack = None


def _ask() -> bool:
    print("May it? [y/N]: ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
