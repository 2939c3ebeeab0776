"""Counts as people read them: one of a thing is no plural, here and wherever these rooms print a count."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

from dualstream_lab.units import quantity

PACKAGE = Path(__file__).parents[1] / "dualstream_lab"
ROOMS = ("cli", "faults", "ingest", "ledger", "stack")
# What is never one, as its limit is far above it, or is not counted.
EXEMPT = {"bytes"}


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (0, ("event",), "0 events"),
        (1, ("event",), "1 event"),
        (12_345_678, ("event",), "12,345,678 events"),
        (1, ("search", "searches"), "1 search"),
        (2, ("search", "searches"), "2 searches"),
        (1, ("event is durable", "events are durable"), "1 event is durable"),
        (0, ("event is durable", "events are durable"), "0 events are durable"),
    ],
)
def test_one_is_no_plural(number: int, words: tuple[str, ...], said: str) -> None:
    assert quantity(number, *words) == said


def plurals(source: str) -> list[str]:
    """What is written behind a whole number in a text, where it is a plural whatever the number is."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for number, text in pairwise(node.values):
            if isinstance(number, ast.FormattedValue) and isinstance(text, ast.Constant):
                noun = re.match(r" (?:more )?([a-z]+s)\b(?!/)", str(text.value))
                is_count = (ast.unparse(number.format_spec) if number.format_spec else "") == "f','"
                is_count |= ast.unparse(number.value).startswith("len(")
                if is_count and noun and noun[1] not in EXEMPT:
                    found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_no_count_is_printed_with_a_plural_for_all_numbers(room: str) -> None:
    texts = {path.name: plurals(path.read_text("utf-8")) for path in (PACKAGE / room).rglob("*.py")}
    assert not {name: found for name, found in texts.items() if found}, "units.quantity counts"


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("f'{n:,} events'", 1),
        ("f'all {len(n)} partitions have them'", 1),
        ("f'{n:,} more lines are damaged'", 1),
        ("f'{n:,.0f} events/s'", 0),
        ("f'{n:,} bytes'", 0),
        ("f'{quantity(n, noun)} of them'", 0),
    ],
)
def test_plurals_are_found(source: str, count: int) -> None:
    assert len(plurals(source)) == count
