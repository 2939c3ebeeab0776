"""A delivery side of this check's own: ``dualstream serve`` in a process, on a local stack."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from dualstream_lab.stack import ManagedProcess
from dualstream_lab.stack.ports import HOST, free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dualstream_lab.stack import LocalStack

__all__ = ["serving"]

_CHECK_INTERVAL: Final = 2  # s between looks for what was lost: the check waits for one at its end


@contextmanager
def serving(stack: LocalStack) -> Iterator[str]:
    """Its URL. Blocks until it serves. Raises StackError."""
    (port,) = free_ports(1)
    directory = stack.directory
    process = ManagedProcess(
        name="dualstream serve",
        command=[
            *("env", f"DUALSTREAM_CHECK_INTERVAL={_CHECK_INTERVAL}"),
            *(sys.executable, "-m", "dualstream_lab.cli", "serve", "--listen", f"{HOST}:{port}"),
            *("--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", str(stack.topic)),
            *("--store", str(directory / "check.db")),
        ],
        log=directory / "serve.log",
        ready=lambda text: "Ctrl-C ends it" in text,
        explain=lambda text: text[-1000:].strip() or "it said nothing",
    )
    process.start()
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.stop()
