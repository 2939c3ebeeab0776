"""Who the events are about: names like GitHub's, and how often each is drawn."""

from __future__ import annotations

import numpy as np

from dualstream_lab.workload.arrivals import Floats, Integers

_FIRST = ["amber", "blue", "calm", "dawn", "ember", "fern", "gold", "hazel", "iron", "jade", "kind", "lunar"]
_SECOND = ["otter", "pine", "quartz", "raven", "stone", "tide", "umber", "vale", "wren", "yarrow", "zephyr"]
_THING = (
    "api", "bot", "cli", "core", "docs", "gateway", "infra", "parser", "sdk", "site", "tools", "web", "worker"
)  # fmt: skip


def source_name(rank: int) -> tuple[str, str]:
    """(source type, source id) of the source with this popularity rank, 0 the most popular.

    Of twenty, seventeen are ``repo`` ("owner/name"), two ``user`` and one ``org``. All names differ.
    """
    owner = f"{_FIRST[rank % len(_FIRST)]}-{_SECOND[rank % len(_SECOND)]}"
    kind = rank % 20
    if kind in {7, 17}:
        return "user", f"{owner}{rank}"
    if kind == 13:
        return "org", f"{owner}-{rank}"
    thing = _THING[rank % len(_THING)]
    round_ = rank // (len(_FIRST) * len(_SECOND) * len(_THING))  # coprime: every triple comes once a round
    return "repo", f"{owner}/{thing}{round_ or ''}"


def cumulative_popularity(count: int, exponent: float, *, hot: float = 0.0, hot_sources: int = 1) -> Floats:
    """Cumulative probabilities of ranks 1…count with weight rank^-exponent; the last is 1.

    With ``hot``, the first ``hot_sources`` share that part of all between them, and the others the rest.
    """
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    if hot and hot_sources < count:
        weights[:hot_sources] *= hot / weights[:hot_sources].sum()
        weights[hot_sources:] *= (1 - hot) / weights[hot_sources:].sum()
    cumulative = np.cumsum(weights)
    return np.asarray(cumulative / cumulative[-1], dtype=np.float64)


def draw(cumulative: Floats, count: int, *, rng: np.random.Generator) -> Integers:
    """Draw ``count`` indices with these cumulative probabilities."""
    drawn = np.searchsorted(cumulative, rng.random(count), side="right")
    return np.minimum(drawn, len(cumulative) - 1).astype(np.int64)
