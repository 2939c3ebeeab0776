"""Apache Kafka's jars: resolved once from Maven by jgo, verified against a lock at every start.

The jars are kept flat in one directory of the user's cache, so that a machine without a network can be
served by copying that directory. Run as a program this module is the resolver: it prints a JSON list.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET  # the user's own Maven settings
from collections.abc import Callable, Mapping
from pathlib import Path

from dualstream_lab.errors import StackError
from dualstream_lab.stack.directory import user_directory

KAFKA_VERSION = "4.4.0"
# Kafka's own dependencies lack a binding for its logging; without one there are no logs at all.
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
LOCK = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.lock")
_RESOLVE_TIMEOUT = 300.0


def class_path(progress: Callable[[str], None]) -> list[Path]:
    """Find the verified jars, in the lock's order; download them if the cache lacks them or differs.

    Raises StackError if they cannot be had, or do not match the lock.
    """
    # SHA-256 and name, in class-path order, as ``sha256sum`` writes them
    lines = LOCK.read_text(encoding="ascii").splitlines()
    lock = {name: digest for digest, name in (line.split() for line in lines if line and line[0] != "#")}
    home = user_directory("cache") / f"kafka-{KAFKA_VERSION}"
    if _difference(home, lock) is not None:
        progress(f"fetching Apache Kafka {KAFKA_VERSION} from Maven (45 MB, once) …")
        _install(_resolve(home), home)
        if difference := _difference(home, lock):
            raise StackError(
                f"{difference}. It is not used. If a proxy or mirror alters downloads, fix that; "
                f"then remove {home} and the jar from the Maven repository (~/.m2) and try again"
            )
    return [home / name for name in lock]


def _difference(home: Path, lock: Mapping[str, str]) -> str | None:
    for name, expected in lock.items():
        try:
            actual = hashlib.sha256((home / name).read_bytes()).hexdigest()
        except OSError:
            return f"{name} is missing from {home}"
        if actual != expected:
            return f"{home / name} has SHA-256 {actual}, the lock says {expected}"
    return None


def _install(jars: list[Path], home: Path) -> None:
    """Link (or copy) the jars into ``home``, each under its final name only when complete."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        for jar in jars:
            with tempfile.TemporaryDirectory(dir=home) as work:
                part = Path(work) / jar.name
                shutil.copy2(jar, part)
                part.replace(home / jar.name)
    except OSError as error:
        raise StackError(
            f"Kafka's jars cannot be kept in {home}: {error}; free space or set XDG_CACHE_HOME"
        ) from error


def _resolve(home: Path) -> list[Path]:
    """Ask jgo, in a process of its own so that the wait is bounded and its chatter stays away."""
    command = [sys.executable, "-m", "dualstream_lab.stack.jars", str(user_directory("cache") / "jgo")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_RESOLVE_TIMEOUT, check=False)
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
    except subprocess.TimeoutExpired:
        done, reason = None, f"not finished after {_RESOLVE_TIMEOUT:g} s"
    if done is None or done.returncode:
        raise StackError(
            f"Apache Kafka's jars could not be fetched from Maven: {reason[:300]}. "
            f"With a network, run `dualstream up` once more (a mirror in ~/.m2/settings.xml is honoured). "
            f"Without one, run it on a machine that has it and copy its {home.name} directory to {home}, "
            "or use brokers you have: set DUALSTREAM_KAFKA_URL and DUALSTREAM_REDIS_URL"
        )
    return [Path(line) for line in json.loads(done.stdout.strip().splitlines()[-1])]


def _repositories() -> dict[str, str]:
    """Read the user's repositories: of jgo's settings, and a mirror of Maven Central in settings.xml."""
    from jgo.config import GlobalSettings  # noqa: PLC0415

    repositories = dict(GlobalSettings.load().repositories)
    settings = Path(os.environ.get("MAVEN_SETTINGS", "~/.m2/settings.xml")).expanduser()
    if settings.is_file():
        for mirror in ET.parse(settings).getroot().iterfind("{*}mirrors/{*}mirror"):  # noqa: S314
            of, url = mirror.findtext("{*}mirrorOf", ""), mirror.findtext("{*}url", "")
            if url and {"central", "*", "external:*"} & {name.strip() for name in of.split(",")}:
                repositories["central"] = url.strip()
    return repositories


def resolved(coordinates: str, cache: Path) -> list[Path]:
    """The jars of Maven coordinates and of what they depend on, as jgo finds them; needs a network."""
    import jgo  # noqa: PLC0415  (part of the stack extra)

    return list(jgo.build(coordinates, cache_dir=cache, repositories=_repositories()).all_jars)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(list(map(str, resolved(COORDINATES, Path(sys.argv[1]))))) + "\n")
