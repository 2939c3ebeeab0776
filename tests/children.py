"""Whatever ends a test ends the processes that it started, and those that they started.

A process hands its environment on, so each one tells for whom it was started: for a test, or for a fixture
of a whole file or session, also where the one between has died. What belongs to a test is killed when the
test is over or out of time. The rest is killed when the session is over, however that comes about: by a
watcher, which is this file as a program.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

MARK = "STARTED_BY_TEST"
_GUARD = str(Path("dualstream_lab", "stack", "guard.py"))
_GONE = 10.0  # s; a process that hangs in the kernel stays


class Children:
    """A pytest plugin."""

    def __init__(self) -> None:
        self._session = f"{os.environ.get(MARK, '')} {uuid4().hex}"  # pytest may be a test's child itself
        self._settings: object = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def _belonging(self, nodeid: str) -> str:
        return f"{self._session} {nodeid}"

    def _watched(self) -> None:
        if self._watcher is None:
            own = {name: value for name, value in os.environ.items() if name != MARK}
            command = [sys.executable, __file__, self._session]
            self._watcher = subprocess.Popen(command, stdin=subprocess.PIPE, env=own, start_new_session=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self) -> None:
        """Children may be interrupted, also where SIGINT is ignored, as after `make test &` in a script.

        What is ignored is handed on; what has a handler is not. Our own process goes on ignoring it.
        """
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda *_: None)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._watched()
        os.environ[MARK] = self._belonging(item.nodeid)
        try:
            return (yield)
        finally:
            end(os.environ.pop(MARK))
            self._settings = None

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, request: pytest.FixtureRequest) -> Iterator[None]:
        before = os.environ.get(MARK)
        os.environ[MARK] = self._belonging(request.node.nodeid)
        try:
            return (yield)
        finally:
            if before is not None:
                os.environ[MARK] = before

    @pytest.hookimpl(wrapper=True, optionalhook=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: object) -> Iterator[None]:
        """Out of time, a test often waits for a child: it must end before the blocks around it are left."""
        self._settings = settings
        done = yield
        fail = signal.getsignal(signal.SIGALRM)
        if callable(fail):

            def alarm(*given: object) -> None:
                try:
                    fail(*given)
                except BaseException:
                    end(self._belonging(item.nodeid))
                    raise

            signal.signal(signal.SIGALRM, alarm)
        return done

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        """A test that failed has no timer any more, and its fixtures may wait, too."""
        if self._settings is not None:
            item.config.hook.pytest_timeout_set_timer(item=item, settings=self._settings)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        if self._watcher is not None:
            self._watcher.communicate(timeout=60)


def end(of: str) -> None:
    """Kill all that belongs to this, until it is gone: what dies may just have started another."""
    deadline = time.monotonic() + _GONE
    while found := [one for one in psutil.process_iter() if _belongs(one, of)]:
        for one in found:
            with suppress(psutil.Error):
                one.kill()
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _belongs(process: psutil.Process, of: str) -> bool:
    """Brokers under a guard do not: it ends them when the process that uses them ends, and cleans up."""
    with suppress(psutil.Error, OSError):  # it is gone, has not been waited for, or is another user's
        if process.environ().get(MARK, "").startswith(of):
            return not any(_guards(one) for one in (process, process.parent()) if one)
    return False


def _guards(process: psutil.Process) -> bool:
    return any(word.endswith(_GUARD) for word in process.cmdline())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end(sys.argv[1])
