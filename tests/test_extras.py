"""What a command needs beyond the base install is in the extra that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest

from dualstream_lab.cli.root import _COMMANDS, _SECTIONS

EXTRAS = """
import sys
for module in {blocked!r}:
    sys.modules[module] = None
from dualstream_lab.cli.root import run
sys.exit(max(run([name, *{arguments!r}]) for name in {names!r}))
"""


def parts_of(extras: list[str]) -> set[str]:
    """The distributions that some extras bring."""
    found: set[str] = set()
    waiting, seen = ["", *extras], set()
    while waiting:
        extra = waiting.pop()
        seen.add(extra)
        for text in requires("dualstream-lab") or ():
            name, inner = re.match(r"([\w.-]+)(?:\[(.*?)\])?", text).groups()
            marked = re.search(r"extra == ['\"](.*?)['\"]", text)
            if (marked[1] if marked else "") != extra:
                continue
            if name == "dualstream-lab":
                waiting += [one for one in inner.split(",") if one not in seen]
            else:
                found.add(name.lower())
    return found


def blocked_without(extras: str) -> list[str]:
    """The modules that are missing where no more than these extras is installed."""
    missing = parts_of(["lab"]) - parts_of(extras.split(",") if extras else [])
    modules = packages_distributions().items()
    return [name for name, parts in modules if missing & {part.lower() for part in parts}]


def with_extras(extras: str, names: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Commands where no more than these extras is installed."""
    code = EXTRAS.format(blocked=blocked_without(extras), names=names, arguments=arguments)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("extras", sorted({extras for extras, _ in _COMMANDS.values()}))
def test_the_extra_that_a_command_names_is_enough_for_it(extras):
    names = [name for name, (needed, _) in _COMMANDS.items() if needed == extras]
    done = with_extras(extras, names, "--help")
    assert done.returncode == 0, done.stderr


def test_every_command_has_its_section_in_the_help():
    assert sorted(name for names in _SECTIONS.values() for name in names) == sorted(_COMMANDS)


def test_a_command_without_its_extra_names_it():
    done = with_extras("stack", ["serve"], "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: `dualstream serve` needs " in done.stderr
    assert "pip install 'dualstream-lab[stack,gateway]'" in done.stderr
