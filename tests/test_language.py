"""The package's names are nouns of the field: what is banned here does not come, and what is left shrinks.

Functions, classes, arguments and attributes are looked at; local variables are not. Who renames one takes it
out of ``_LEFT``, which ``python -m tests.test_language`` prints anew.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dualstream_lab"

# A pronoun, an adverb or a participle is no name, nor these where the field has another ("": in all rooms).
_NO_NAMES = {
    "": "its|here|where|there|whats?|told|found|made|ours|mine|others|theirs|whose",
    "publisher": "part|flight|note|trouble",
    "simulation": "beside|tiles",
}
# These are not even a word in one.
_NO_WORDS = {
    "": "tells?|told|hear(s|d|ing)?|lanes?|soils?|dirty|gentle|strangers?|foreign|seats?|bites|mend(s|ed)?"
    "|witness|truth|restless|crew|outbox|facts|questions|copies",
    "gateway": "turn|look",
    "lab": "stay|invite",
    "locust_bridge": "panel",
    "simulation": "trip|busy",
}
# What is still there, by room.
_LEFT: dict[str, str] = {
    "processor": "what",
    "publisher": "_made dirty_sources found part tell_drops trouble what",
}


def banned(name: str, room: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")
    return any(
        re.fullmatch(_NO_NAMES.get(there, "-"), words)
        or any(re.fullmatch(_NO_WORDS.get(there, "-"), word) for word in words.split("_"))
        for there in ("", room)
    )


def names(source: str) -> set[str]:
    """Of functions, classes, arguments and attributes."""
    seen = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                seen.add(name)
            case ast.ClassDef(name=name, body=body):
                seen.add(name)
                for field in body:
                    targets = getattr(field, "targets", [getattr(field, "target", None)])
                    seen |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.arg(arg=name):
                seen.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store()):
                seen.add(name)
    return seen


def left() -> dict[str, set[str]]:
    """Banned names by room."""
    found = defaultdict(set)
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        found[room] |= {name for name in names(path.read_text(encoding="utf-8")) if banned(name, room)}
    return {room: those for room, those in found.items() if those}


def test_no_banned_name_comes_and_what_went_is_struck_off() -> None:
    now, known = left(), {room: set(those.split()) for room, those in _LEFT.items()}
    for room in now.keys() | known.keys():
        come = now.get(room, set()) - known.get(room, set())
        gone = known.get(room, set()) - now.get(room, set())
        assert not come, f"{room}: no names of ours (a noun of the field instead): {sorted(come)}"
        assert not gone, f"{room}: take what is gone out of _LEFT: {sorted(gone)}"


@pytest.mark.parametrize(
    ("source", "room", "expected"),
    [
        ("def tell_drops(its, *, where=1): its.x = told = 1", "tasks", {"tell_drops", "its", "where"}),
        (
            "class HeardAfter:\n    dirty: int\n    lanes = 1\n    fine = 2",
            "store",
            {"HeardAfter", "dirty", "lanes"},
        ),
        ("class A:\n    def f(self): self._mended = lambda mine: mine", "faults", {"_mended", "mine"}),
        ("def part(flight, in_flight): ...", "publisher", {"part", "flight"}),
        ("def part(flight, tellurium, elsewhere, where_from): ...", "ledger", set()),
    ],
)
def test_names_are_found(source: str, room: str, expected: set[str]) -> None:
    assert {name for name in names(source) if banned(name, room)} == expected


def test_what_is_left_is_sorted_and_has_no_empty_room() -> None:
    assert list(_LEFT) == sorted(_LEFT)
    assert all(those.split() == sorted(set(those.split())) and those for those in _LEFT.values())


if __name__ == "__main__":
    print("_LEFT: dict[str, str] = {")
    for room, those in sorted(left().items()):
        first, *more = textwrap.wrap(" ".join(sorted(those)), 90)
        if more:
            print(f'    "{room}": (', *(f'        "{line} "' for line in (first, *more)), "    ),", sep="\n")
        else:
            print(f'    "{room}": "{first}",')
    print("}")
