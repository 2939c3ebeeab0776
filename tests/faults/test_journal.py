"""What a fault changes on a broker that outlives us is in a file before it is changed: a crash is undone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dualstream_lab.errors import FaultInert, StackError
from dualstream_lab.faults.fault import Fault, Target
from dualstream_lab.faults.injector import broken, open_target, recover
from dualstream_lab.faults.journal import JournalEntry, journal_path, left_behind
from dualstream_lab.faults.redis.probe import ask
from dualstream_lab.faults.spec import CATALOGUE
from dualstream_lab.stack.ports import free_ports
from dualstream_lab.stack.valkey import find_redis, redis_process

from .conftest import redis_state

NOTED = ["oom", "readonly", "output-buffer", "maxclients", "no-permission", "busy"]

# Breaks a Redis that outlives it, says so, and waits to be killed.
CRASHING = """
import asyncio, sys
from dualstream_lab.config import Settings
from dualstream_lab.faults.fault import Target
from dualstream_lab.faults.injector import broken

async def main(what, url):
    settings = Settings.load(kafka_url="127.0.0.1:1", redis_url=url)
    async with broken(Target(direct=settings, settings=settings, owned=True), what) as evidence:
        print(evidence, flush=True)
        await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    """A Redis that is not of the stack."""
    (port,) = free_ports(1)
    process = redis_process(find_redis(), port=port, directory=tmp_path_factory.mktemp("redis"), remove=None)
    process.start()
    yield f"redis://127.0.0.1:{port}"
    process.kill()


@pytest.fixture
def mine(settings, url):
    where = settings(redis_url=url)
    return Target(direct=where, settings=where, owned=True)


def crash(what: str, url: str, number: int = signal.SIGKILL) -> str:
    """Begin the fault in another process and end that; the evidence."""
    command = [sys.executable, "-c", CRASHING, what, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        evidence = process.stdout.readline()
        process.send_signal(number)
        process.wait(20)
    return evidence


@pytest.mark.parametrize("name", NOTED)
async def test_what_a_killed_process_left_is_mended(url, name):
    before = await redis_state(url)
    assert await asyncio.to_thread(crash, f"redis.{name}", url)
    (entry,) = left_behind()
    assert entry.fault == f"redis.{name}"
    assert await recover(entry)
    assert await redis_state(url) == before
    assert left_behind() == []
    assert not list(journal_path().iterdir())


async def test_the_command_line_says_so_and_mends(url, settings, tmp_path):
    def chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dualstream_lab.cli", "chaos", *arguments],
            capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        )  # fmt: skip

    before = await redis_state(url)
    await asyncio.to_thread(crash, "redis.no-permission", url)
    scenario = tmp_path / "slow.toml"
    scenario.write_text("[workload]\nduration = 5\n[[faults]]\nfault = 'redis.oom'\nat = 1\nfor = 1\n")
    where = settings(redis_url=url)
    refused = await asyncio.to_thread(
        chaos, str(scenario), "--kafka", where.kafka_url, "--redis", url, "--target-is-mine"
    )
    assert refused.returncode == 3
    assert (
        "redis.no-permission of a run that crashed was not undone: dualstream chaos --mend" in refused.stderr
    )
    done = await asyncio.to_thread(chaos, "--mend")
    assert done.returncode == 0
    assert "redis.no-permission is over: a PUBLISH is received" in done.stderr
    assert await redis_state(url) == before
    assert "nothing is broken" in (await asyncio.to_thread(chaos, "--mend")).stderr


async def test_what_cannot_be_undone_now_is_kept_for_later(mine, url):
    gone = mine.direct.model_dump(mode="json") | {"redis_url": f"redis://127.0.0.1:{free_ports(1)[0]}"}
    original = {"maxmemory-policy": "noeviction", "maxmemory": "0"}
    written = JournalEntry(fault="redis.oom", settings=gone, original=original)
    written.write()
    written.close()
    (entry,) = left_behind()
    with pytest.raises(FaultInert, match=r"redis\.oom cannot be undone: .*connecting"):
        await recover(entry)
    assert left_behind() == [entry]


@pytest.mark.parametrize("version", [None, 0, 2])
async def test_a_file_of_another_version_is_refused_and_kept(version):
    """What it calls the settings that were changed is not known."""
    written = JournalEntry(fault="redis.oom", settings={}, original={"memory": "0"})
    written.write()
    written.close()
    values = json.loads(written.path.read_text())
    values.pop("version")
    written.path.write_text(json.dumps(values if version is None else values | {"version": version}))
    (entry,) = left_behind()
    with pytest.raises(
        FaultInert, match=r"redis\.oom cannot be undone: .*, of another version, does not say"
    ):
        await recover(entry)
    assert left_behind() == [entry]


async def test_it_is_written_before_the_change_and_gone_after_the_end(mine, url, monkeypatch):
    before = await redis_state(url)
    seen = []

    async def look(fault: Fault) -> str:
        (path,) = journal_path().iterdir()
        seen.append(stat.S_IMODE(path.stat().st_mode))
        assert left_behind() == [], "its process lives"
        return "looked"

    monkeypatch.setattr(CATALOGUE["redis.oom"], "verify_active", look)
    async with broken(mine, "redis.oom"):
        pass
    assert seen == [0o600], "it may hold a password"
    assert not list(journal_path().iterdir())
    assert await redis_state(url) == before


async def test_nothing_is_changed_where_it_cannot_be_written(mine, url, tmp_path):
    before = await redis_state(url)
    (tmp_path / "dualstream-lab").write_text("in the way")
    with pytest.raises(StackError, match=r"the journal .* cannot be written"):
        async with broken(mine, "redis.oom"):
            pass
    assert await redis_state(url) == before


async def test_nobody_begins_where_something_is_still_broken(mine, url):
    await asyncio.to_thread(crash, "redis.oom", url)
    with pytest.raises(FaultInert, match=r"redis\.oom of a run that crashed is not undone"):
        async with open_target(mine.direct, ["redis.oom"], owned=True):
            pass
    for entry in left_behind():
        await recover(entry)
    assert await ask(url, "PING") == "PONG"


def test_a_stack_of_ours_needs_no_file(target):
    fault = CATALOGUE["redis.oom"](target)
    fault.note({"memory": "0"})
    assert not journal_path().exists()
    assert os.environ["XDG_STATE_HOME"]
