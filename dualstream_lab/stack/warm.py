"""What makes a broker start quickly: an archive of loaded classes, and a formatted directory to copy.

Both are made once and kept in the user's cache. Without them (a full disk, another Java) brokers start
as well, only later.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dualstream_lab.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from dualstream_lab.stack.java import Java

__all__ = ["Runtime"]

_QUIET = ("org.apache.kafka.common.config.AbstractConfig", "org.apache.kafka.common.utils.AppInfoParser")
_LOGGING = [
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
    *(f"-Dorg.slf4j.simpleLogger.log.{name}=warn" for name in _QUIET),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Java, Kafka's verified jars, and where the quick start's files are kept."""

    java: Java
    jars: tuple[Path, ...]
    archive: Path | None = None

    def command(self, *, heap_mb: int, temporary: Path) -> list[str]:
        """The Java command up to the main class."""
        options = [
            f"-Xms{heap_mb // 2}m",
            f"-Xmx{heap_mb}m",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:+ExitOnOutOfMemoryError",
            # No file outside the stack's directory: none is left behind by a kill.
            "-XX:-UsePerfData",
            f"-Djava.io.tmpdir={temporary}",
            f"-XX:ErrorFile={temporary}/crash-%p.log",
        ]
        if self.java.version >= 23:
            options.append("--sun-misc-unsafe-memory-access=allow")
        if self.archive is not None:
            options += [f"-XX:SharedArchiveFile={self.archive}", "-Xshare:auto", "-Xlog:disable"]
        path = ":".join(map(str, self.jars))
        return [str(self.java.binary), *options, *_LOGGING, "-cp", path]

    def format(self, data: Path, *, cluster_id: str, node: int, directory_id: str) -> None:
        """Format a broker's directory with Kafka's own tool."""
        del directory_id
        config = data.parent / "format.properties"
        config.write_text(
            f"process.roles=broker,controller\nnode.id={node}\nlog.dirs={data}\n"
            "controller.quorum.voters=" + ",".join(f"{i}@127.0.0.1:{i}" for i in range(1, 4)) + "\n"
            "listeners=CONTROLLER://127.0.0.1:1,PLAINTEXT://127.0.0.1:2\ncontroller.listener.names=CONTROLLER\n"
        )
        command = self.command(heap_mb=128, temporary=data.parent / "tmp")
        command += ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise StackError(f"{data} could not be formatted: {(done.stderr or done.stdout).strip()[-300:]}")
