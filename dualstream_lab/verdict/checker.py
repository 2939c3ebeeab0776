"""What an experiment ends in: criteria that are valid, inconclusive or invalid; the worst counts. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

T = TypeVar("T", contravariant=True)  # noqa: PLC0105  (as pyright and the standard library name it)


class Validity(StrEnum):
    """What became of a criterion, or of an experiment; the worse, the later."""

    VALID = "passes"
    INCONCLUSIVE = "inconclusive"
    INVALID = "FAILS"

    @classmethod
    def of(cls, held: bool) -> Validity:
        """Valid for what held, else invalid."""
        return cls.VALID if held else cls.INVALID


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One thing that was judged: a threshold, a fault, a measure, a way to be wrong.

    ``text``: what was found; ``reason``: why that is not valid, empty where nobody needs to be stopped by it.
    """

    name: str
    group: str
    validity: Validity = Validity.VALID
    text: str | None = None
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What an experiment came to: every criterion with its validity. ``state``: ``finished``,
    ``interrupted``, or ``running`` where it died.

    ``about``: what else a reader of it alone should know; ``values``: all of it, for JSON.
    """

    experiment: str
    state: str
    criteria: tuple[Criterion, ...]
    values: Mapping[str, Any]
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def validity(self) -> Validity:
        """The worst validity of its criteria."""
        return max((one.validity for one in self.criteria), key=list(Validity).index, default=Validity.VALID)


class Checker(Protocol[T]):
    """Judges one kind of experiment: runs, proofs, checks of a gateway, comparisons."""

    def __call__(self, experiment: T, /) -> Conclusion:
        """Judge an experiment, from what was recorded of it alone."""


def finished(state: str, seconds: float, name: str = "the run finished", reason: str = "") -> Criterion:
    """The criterion that nothing ended an experiment before its time; else it is inconclusive."""
    reason = reason or ("" if state == "finished" else f"it was {state}")
    validity = Validity.INCONCLUSIVE if reason else Validity.VALID
    return Criterion(name=name, group="dualstream", validity=validity, seconds=seconds, reason=reason)


def as_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON can hold them: infinite and undefined numbers become text."""
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return as_plain(value)
    if isinstance(value, (list, tuple)):
        return [*map(_plain, value)]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
