"""A judgement as a table: rules in their order, each with a name, a condition and a sentence. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Rule(NamedTuple, Generic[T]):
    """One thing that may be said of a subject; ``sentence`` names its attributes: ``{0.rate:.1f} events``."""

    name: str
    applies: Callable[[T], object]
    sentence: str


def deciding(rules: Iterable[Rule[T]], subject: T) -> Rule[T]:
    """The first rule that applies; one must."""
    return next(rule for rule in rules if rule.applies(subject))


def sentences(rules: Iterable[Rule[T]], subject: T) -> list[str]:
    """What all rules that apply say, in their order."""
    return [rule.sentence.format(subject) for rule in rules if rule.applies(subject)]
