"""Whatever ends a test ends the processes that it started: see children.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
IGNORING = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
CONFTEST = """
import subprocess, sys
from pathlib import Path
import pytest
from tests.children import Children

LASTING = (
    "import subprocess, sys, time; from pathlib import Path;"
    "waits = [sys.executable, '-c', 'import time; time.sleep(600)'];"
    "child = subprocess.Popen(waits, start_new_session=True);"
    "Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(600)"
)

def pytest_configure(config):
    config.pluginmanager.register(Children())

@pytest.fixture(scope="session")
def lasting():
    def start(name):
        process = subprocess.Popen([sys.executable, "-c", LASTING, name])
        while process.poll() is None and not (Path(name).exists() and Path(name).read_text()):
            pass
        return process
    return start
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts pytest on these tests, in a directory of its own."""
    begun: list[subprocess.Popen[str]] = []

    def start(tests: str, *, ignoring: bool = False) -> subprocess.Popen[str]:
        (tmp_path / "conftest.py").write_text(CONFTEST)
        (tmp_path / "test_it.py").write_text("import signal, subprocess, sys, time\nimport pytest\n" + tests)
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        begun.append(
            subprocess.Popen(
                [*(IGNORING if ignoring else ()), *PYTEST],
                cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def lives(file: Path) -> bool:
    """Whether the process of this number, which a file holds, is there."""
    pid = int(file.read_text())
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_out_of_time_a_test_does_not_wait_for_its_child_and_leaves_none(session, tmp_path: Path) -> None:
    said, _ = session("""
@pytest.mark.timeout(100)
def test_waits(lasting):
    with lasting("grandchild"):
        signal.setitimer(signal.ITIMER_REAL, 0.1)  # these 100 s are over
        time.sleep(60)

def test_goes_on():
    pass
""").communicate(timeout=60)
    assert "1 failed, 1 passed" in said
    assert not lives(tmp_path / "grandchild")


def test_fixtures_that_wait_after_a_failure_are_out_of_time_as_well(session, tmp_path: Path) -> None:
    said, _ = session("""
@pytest.fixture
def forgotten(lasting):
    with lasting("grandchild") as process:
        yield process
        signal.setitimer(signal.ITIMER_REAL, 0.1)

@pytest.mark.timeout(100)
def test_fails(forgotten):
    assert forgotten.poll() == 0
""").communicate(timeout=60)
    assert "1 failed, 1 error" in said
    assert not lives(tmp_path / "grandchild")


def test_what_belongs_to_a_file_lives_until_the_session_ends(session, tmp_path: Path) -> None:
    said, _ = session("""
@pytest.fixture(scope="module")
def server(lasting):
    return lasting("server")

def test_one(server, lasting):
    assert server.poll() is None
    test_one.own = lasting("own")

def test_another(server):
    assert server.poll() is None
    assert test_one.own.poll() == -signal.SIGKILL
""").communicate(timeout=60)
    assert "2 passed" in said
    assert not lives(tmp_path / "own")
    assert not lives(tmp_path / "server")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_session_that_is_killed_leaves_nothing(session, tmp_path: Path, number: signal.Signals) -> None:
    process = session("""
def test_lasts(lasting):
    lasting("grandchild").wait()
""")
    file = tmp_path / "grandchild"
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == -number
    while lives(file):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_where_ctrl_c_is_ignored_children_can_be_interrupted(session) -> None:
    said, _ = session(
        """
def test_interrupts():
    waits = "print(flush=True); import time; time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", waits], stdout=-1, stderr=-1) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
    signal.raise_signal(signal.SIGINT)
""",
        ignoring=True,
    ).communicate(timeout=60)
    assert "1 passed" in said
