"""What makes brokers start in half the time: an archive of Kafka's classes, and a formatted directory.

Both are made by a first, short run of a broker and kept in the user's cache (65 MB). Where that fails
(a full disk, a Java without class-data sharing) brokers start as well, only later.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dualstream_lab.errors import StackError
from dualstream_lab.stack.directory import user_directory
from dualstream_lab.stack.kafka import BrokerPorts, broker_process, new_id
from dualstream_lab.stack.ports import free_ports
from dualstream_lab.stack.runtime import Runtime

_ARCHIVE = "kafka.jsa"
_TEMPLATE = "formatted"
_KEPT = 3
_DUMP_TIMEOUT = 120.0


def warmed(runtime: Runtime, progress: Callable[[str], None]) -> Runtime:
    """Give the runtime its quick start, which is made now if it is not there yet."""
    home = user_directory("cache") / f"warm-{_key(runtime)}"
    try:
        if not home.exists():
            with _alone(home.parent):
                if not home.exists():
                    progress("preparing a faster start of Kafka (once, about 10 s) …")
                    _make(runtime, home)
    except (OSError, StackError, subprocess.SubprocessError) as error:
        progress(f"no faster start of Kafka: {error}")
        return runtime
    archive = home / _ARCHIVE
    options = (f"-XX:SharedArchiveFile={archive}",) if archive.exists() else ()
    return replace(runtime, options=options, template=home / _TEMPLATE)


def _key(runtime: Runtime) -> str:
    """Name the archive by the Java and the files it is of: Java refuses one that was made of others."""
    files = [runtime.java.binary.resolve(), *runtime.jars]
    parts = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Let one process at a time make it; others wait and then use it."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "warm.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(runtime: Runtime, home: Path) -> None:
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="making-") as name:
        work = Path(name)
        made = work / "made"
        (work / _TEMPLATE).mkdir()
        runtime.format(work / _TEMPLATE, cluster_id=new_id(), node=1, directory_id="")
        shutil.copytree(work / _TEMPLATE, made / _TEMPLATE)
        classes = work / "classes"
        _train(replace(runtime, options=(f"-XX:DumpLoadedClassList={classes}",)), work)
        _dump(runtime, classes, made / _ARCHIVE)
        made.rename(home)
    others = sorted(home.parent.glob("warm-*/"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _train(runtime: Runtime, work: Path) -> None:
    client, controller = free_ports(2)
    broker = broker_process(
        1, ports=[BrokerPorts(client=client, controller=controller)], cluster_id=new_id(), runtime=runtime,
        directory=work / "broker", remove=work, settings={},
    )  # fmt: skip
    try:
        broker.start()
        broker.stop()
    finally:
        broker.kill()


def _dump(runtime: Runtime, classes: Path, archive: Path) -> None:
    command = [str(runtime.java.binary), "-XX:+UseG1GC", "-Xshare:dump", f"-XX:SharedClassListFile={classes}"]
    command += [f"-XX:SharedArchiveFile={archive}", "-cp", runtime.class_path]
    done = subprocess.run(command, capture_output=True, timeout=_DUMP_TIMEOUT, check=False)
    if done.returncode:
        # A Java that cannot do it will not learn it: keep the rest, and do not try at every start.
        archive.unlink(missing_ok=True)
