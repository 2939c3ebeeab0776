"""A guard between a stack and one of its child processes. Run by path, never imported; standard library only.

    guard.py <log file> <directory to remove or ""> <command…>

The guard starts the command and outlives its own parent by a moment: standard input is a pipe whose
other end the parent holds. A letter on it sends the child a signal, so that only a process which is
certainly ours is ever signalled. End of file means that the parent is gone, whatever killed it: the
guard then kills the child, removes the directory and ends. It ends with the child's exit status.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SIGNALS = {b"k": signal.SIGKILL, b"t": signal.SIGTERM, b"s": signal.SIGSTOP, b"c": signal.SIGCONT}


def main(log: str, remove: str, command: list[str]) -> int:
    """Start the command, report its process id on standard output, guard it until it ends."""
    wake, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with Path(log).open("ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    os.write(1, b"%d\n" % child.pid)
    while child.poll() is None:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 512)
        if 0 in ready and not _obey(child, os.read(0, 1)):
            child.kill()
            child.wait()
            _remove(remove)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _obey(child: subprocess.Popen[bytes], letter: bytes) -> bool:
    """Send the signal that the letter means; whether the parent is still there."""
    if letter in SIGNALS:
        child.send_signal(SIGNALS[letter])
    return letter != b""


def _remove(directory: str) -> None:
    """Remove the stack's directory. Its other processes may still write there until their guards act."""
    deadline = time.monotonic() + 5
    while directory and Path(directory).exists() and time.monotonic() < deadline:
        shutil.rmtree(directory, ignore_errors=True)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
