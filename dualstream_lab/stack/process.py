"""One child process of a stack: start, stop, kill, pause and resume it, each bounded in time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualstream_lab.errors import StackError

_GUARD = Path(__file__).with_name("guard.py")
_REAP_TIMEOUT = 10.0
_POLL = 0.02


@dataclass(kw_only=True, eq=False, repr=False)
class ManagedProcess:
    """A server under a guard process, which kills it when this process ends, however that comes about.

    ``ready(log_text)`` says whether the server serves, given its log since this start; it is asked
    every 20 ms. ``explain(log_text)`` turns the log of a failed start into what is wrong and what to do.
    ``troubles``: times that it was killed or paused. Not safe for use by several threads at once. Times are
    in seconds.
    """

    name: str
    command: Sequence[str]
    log: Path
    ready: Callable[[str], bool]
    explain: Callable[[str], str]
    remove: Path | None = None
    start_timeout: float = 60.0
    stop_timeout: float = 10.0
    troubles: int = 0
    _guard: subprocess.Popen[bytes] | None = None
    _pid: int | None = None
    _paused: bool = False
    _log_start: int = 0

    def __repr__(self) -> str:
        state = "paused" if self.paused else "running" if self.running else "stopped"
        return f"<{self.name} {state} pid={self.pid}>"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs (also while paused), else None."""
        return self._pid if self.running else None

    @property
    def running(self) -> bool:
        """Whether the process exists. A paused one does."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def paused(self) -> bool:
        """Whether it runs, and stands still since :meth:`pause`."""
        return self._paused and self.running

    def start(self) -> None:
        """Start it and wait until it serves, on the same port and data as before. Nothing if it runs.

        Raises StackError with the reason found in the log, or when the start takes too long.
        """
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it without waiting. Nothing if it runs."""
        if self.running:
            return
        self._ended(0.0)  # of itself, since the last start
        try:
            self._log_start = self.log.stat().st_size if self.log.exists() else 0
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", _GUARD, self.log, str(self.remove or ""), *self.command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise StackError(f"{self.name} could not be started: {error}") from error
        self._paused = False
        assert self._guard.stdout is not None  # noqa: S101  (it is a pipe)
        line = self._guard.stdout.readline()
        if not line.strip().isdigit():
            self._abandon()
        self._pid = int(line)

    def wait_ready(self) -> None:
        """Wait until the process serves. Raises StackError if it ends first, or after the start's timeout."""
        deadline = time.monotonic() + self.start_timeout
        while not self.ready(self.log_text()):
            if not self.running:
                self._ended(0.0)
                raise StackError(f"{self.name} did not start: {self.explain(self.log_text())}")
            if time.monotonic() > deadline:
                text = self.log_text()
                self.kill()
                raise StackError(
                    f"{self.name} was not ready within {self.start_timeout:g} s: {self.explain(text)}"
                )
            time.sleep(_POLL)

    def log_text(self) -> str:
        """Read what the log holds since the last start."""
        try:
            with self.log.open("rb") as file:
                file.seek(self._log_start)
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def stop(self) -> None:
        """Ask it to end (SIGTERM); kill it if it has not done so in time. Nothing if it does not run."""
        if self._paused:
            self.resume()
        self.terminate()
        if not self._ended(self.stop_timeout):
            self.kill()

    def terminate(self) -> None:
        """Send SIGTERM without waiting."""
        self._signal(b"t")

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait until it is gone. Nothing if it does not run."""
        self.troubles += 1
        self._signal(b"k")
        if not self._ended(_REAP_TIMEOUT):
            raise StackError(f"{self.name} (process {self._pid}) cannot be killed: it hangs in the kernel")

    def pause(self) -> None:
        """Stop it in place (SIGSTOP): connections stay open, nothing is answered."""
        self.troubles += 1
        self._signal(b"s")
        self._paused = self.running

    def resume(self) -> None:
        """Let a paused one go on (SIGCONT)."""
        self._signal(b"c")
        self._paused = False

    def _signal(self, letter: bytes) -> None:
        if not self.running or self._guard is None or self._guard.stdin is None:
            return
        try:
            self._guard.stdin.write(letter)
            self._guard.stdin.flush()
        except BrokenPipeError:
            self._ended(_REAP_TIMEOUT)

    def _ended(self, timeout: float) -> bool:
        """Wait ``timeout`` s for guard and server to end, and let go of their pipes. False: they have not."""
        if self._guard is None:
            return True
        try:
            self._guard.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        for pipe in (self._guard.stdin, self._guard.stdout, self._guard.stderr):
            if pipe is not None:
                pipe.close()
        self._guard = None
        return True

    def _abandon(self) -> None:
        """Say why the guard could not start the command. Raises StackError."""
        guard = self._guard
        assert guard is not None  # noqa: S101
        _, error = guard.communicate(timeout=_REAP_TIMEOUT)
        self._guard = None
        reason = error.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise StackError(f"{self.name} could not be started: {reason}")
