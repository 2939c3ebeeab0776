"""The package's names are nouns of the field: what the glossary bans does not come, and what is left shrinks.

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
    "analysis": "found heard others what",
    "cli": (
        "_hear _heard _made _mend _tell _tell_checks _tell_costs _tell_state _told _where found its mend "
        "others run_and_tell tell told what where "
    ),
    "event": "what",
    "faults": "what",
    "gateway": (
        "Seats _dirty _hear_hint _hear_other _heard _look _look_anyway _look_at_suspects _look_now _made "
        "_seats _told_confirmed _told_lost _told_refused _turn foreign found hear heard heard_after "
        "is_foreign look made seats tell told turn what "
    ),
    "kafka_log": "facts what",
    "lab": (
        "ForeignPublisher Others Stay Truth _Facts _Heard _begin_stay _found _hear _hearing _here _lane "
        "_made _ours _restless _stay _stranger _tell _tell_all _tell_fault _told _what _where _witness "
        "copies facts foreign found heard hearing hears invite lanes made mine others ours restless stay "
        "tell told truth what "
    ),
    "ledger": "HEARD HEARD_AFTER_GIVING_UP Heard _ours _strangers heard tell told what",
    "load": "GatewayHearing Hearing _all_heard _heard _told all_heard found hear heard lane lanes tell where",
    "locust_bridge": (
        "Crew _crew _heard_at _hearing _hears_itself _lanes _outbox add_panel hear_everything hearing "
        "hearing_of hears_itself lanes tell "
    ),
    "processor": "what",
    "publisher": (
        "Flight Lane Part _all_dirty _dirty _gentle_until _is_dirty _lanes _made _soil _soil_again "
        "_tell_if_empty _trouble dirty_sources flight found lane part questions tell_drops told trouble "
        "what "
    ),
    "recording": "found heard heard_again what",
    "replay": "Found found",
    "simulation": (
        "Heard Told _Lane _busy _dirty _gentle_until _hear _lanes _made _tell _trip as_heard beside busy "
        "copies fetch_trip found gentle hear heard its kafka_trip lane lanes ours redis_trip tell tiles "
        "told trip what where "
    ),
    "stack": "copies found others what",
    "store": "_tell found",
    "subscriber": "_tell heard_at",
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
        assert not come, f"{room}: no names of ours (LANGUAGE: a noun of the field instead): {sorted(come)}"
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
        first, *more = textwrap.wrap(" ".join(sorted(those)), 98)
        if more:
            print(f'    "{room}": (', *(f'        "{line} "' for line in (first, *more)), "    ),", sep="\n")
        else:
            print(f'    "{room}": "{first}",')
    print("}")
