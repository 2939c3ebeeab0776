"""Free ports on the loopback address."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

from dualstream_lab.errors import StackError

HOST = "127.0.0.1"
# Below the range that systems give to outgoing connections (from 32768 on Linux, 49152 on macOS). A port
# of that range may be taken while a broker is down, even by a client's own attempt to reach the broker.
_FIRST, _LAST = 20_000, 32_000
_random = random.SystemRandom()


def free_ports(count: int) -> list[int]:
    """Find ``count`` different ports that were free a moment ago. Raises StackError if there are none."""
    ports: list[int] = []
    with ExitStack() as held:
        for _ in range(1000):
            if len(ports) == count:
                return ports
            port = _random.randrange(_FIRST, _LAST)
            if (bound := _bind(port)) is not None:
                held.enter_context(bound)
                ports.append(port)
    raise StackError(f"no {count} free ports between {_FIRST} and {_LAST} on {HOST}; end what uses them")


def check_port(port: int, option: str) -> int:
    """Check that a port is free. Raises StackError naming the option that asked for it."""
    bound = _bind(port)
    if bound is None:
        raise StackError(
            f"{option}: port {port} on {HOST} is in use; choose another, or leave the option out"
        )
    bound.close()
    return port


def _bind(port: int) -> socket.socket | None:
    bound = socket.socket()
    try:
        # As the servers do: a connection that lingers from the last run is no obstacle.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
        bound.listen()
    except OSError:
        bound.close()
        return None
    return bound
