"""What a command line names: runs and repeats of them, and how much worse a measure may be."""

from __future__ import annotations

import difflib
import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dualstream_lab.analysis.comparison import ALLOW
from dualstream_lab.analysis.measure import MEASURES
from dualstream_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["allowances", "named_arms", "run_directories"]

_FORM = re.compile(r"\s*(?:(\S+?)\s*=\s*)?(\d+(?:\.\d+)?)\s*%\s*")


def run_directories(argument: str) -> list[Path]:
    """Those that it names: a run, the runs in a directory, or a pattern's. Raises ConfigError for none."""
    path = Path(argument)
    if path.is_dir():
        found = [path] if _is_run(path) else sorted(filter(_is_run, path.iterdir()))
        missing = "has no manifest.json, and there are no run directories in it"
    else:
        found = sorted(filter(_is_run, map(Path, glob.glob(argument))))  # noqa: PTH207  (absolute ones, too)
        missing = "does not exist" if not glob.has_magic(argument) else "matches no run directory"
    if not found:
        raise ConfigError(f"{argument} {missing}; `dualstream runs` lists those that there are")
    return found


def named_arms(arguments: Sequence[str]) -> dict[str, list[Path]]:
    """The run directories of each argument, by a short name. Raises ConfigError for fewer than two, and where
    two of them have a run in common.
    """
    if len(arguments) < 2:
        raise ConfigError("give two runs at least, or two patterns of repeats; the first is the base")
    names = [Path(argument).resolve().name for argument in arguments]
    if len(set(names)) < len(names):
        names = list(arguments)
    taken: dict[Path, str] = {}
    arms: dict[str, list[Path]] = {}
    for name, argument in zip(names, arguments, strict=True):
        arms[name] = run_directories(argument)
        for path in arms[name]:
            if (before := taken.setdefault(path.resolve(), argument)) is not argument:
                raise ConfigError(f"{path} is named by both {before} and {argument}")
    return arms


def allowances(texts: Sequence[str]) -> tuple[float, dict[str, float]]:
    """(of all rates and latencies, of single measures), as shares, from ``10%`` and ``live.missing=0.5%``.

    Raises ConfigError.
    """
    everywhere, single = ALLOW, {}
    short = {name.replace(".latency", ""): name for name in MEASURES}
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"--allow {text!r}: must be per cent, 10%, or of a measure: live.latency.p99=20%"
            )
        name, size = match[1], float(match[2]) / 100
        if name is None:
            everywhere = size
            continue
        if name not in MEASURES and name not in short:
            near = difflib.get_close_matches(name, MEASURES, n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise ConfigError(f"--allow {text!r}: there is no measure {name!r}; {hint}{', '.join(MEASURES)}")
        single[short.get(name, name)] = size
    return everywhere, single


def _is_run(path: Path) -> bool:
    return (path / "manifest.json").is_file()
