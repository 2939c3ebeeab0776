"""The reference against queueing theory: stations alone, all else takes no time."""

from __future__ import annotations

from dataclasses import replace
from math import exp, factorial, floor

import numpy as np
import pytest

from dualstream_lab.simulation import Costs, Deployment, Outcome
from dualstream_lab.simulation.outages import Outages
from dualstream_lab.simulation.random_draws import Noise, draw
from dualstream_lab.workload import Workload
from tests.simulation.reference import reference

SERVICE = 1e-3  # s
CUSTOMERS = 8000
WARM = 500
BATCHES = 20  # of successive customers: their means are nearly independent
NOTHING = Costs(**dict.fromkeys(Costs.__slots__, 0.0))
# So many publishers that hardly ever one has two requests at once: each request is a customer of its own.
DEPLOYMENT = Deployment(
    publishers=150,
    partitions=1,
    consumers=0,
    delivery_timeout=600.0,
    redis_timeout=60.0,
    notify_queue=100_000,
)
EXPONENTIAL = np.random.default_rng(5).exponential(1.0, 2 * CUSTOMERS)
CONSTANT = np.ones(1)


def served(load: float, table: np.ndarray, **costs: float) -> Outcome:
    """``CUSTOMERS`` calls of an event each, on average, that keep a station busy this share of its time."""
    workload = Workload(
        rate=load / SERVICE, duration=CUSTOMERS * SERVICE / load, plan="poisson", batch=1, sources=1, seed=3
    )
    asked = replace(NOTHING, **costs)
    deployment = DEPLOYMENT if "call" not in costs else replace(DEPLOYMENT, publishers=1)
    drawn = draw(sources=1, duration=1, deployment=deployment, costs=asked, outages=Outages(), seed=1)
    noise = Noise(table=table, starts=np.zeros(1, np.int64))
    drawn = replace(drawn, requests=noise, exchanges=noise)
    return reference(workload, deployment, asked, draws=drawn)


def waits(outcome: Outcome, station: str, table: np.ndarray) -> np.ndarray:
    """From a customer's arrival until its service begins."""
    service = SERVICE * np.resize(table, len(outcome))
    match station:
        case "publisher":
            return outcome.sent - outcome.intended
        case "broker":
            return outcome.logged - outcome.entered - service
        case _:
            return outcome.delivered - outcome.acked - service


def agrees(values: np.ndarray, expected: float) -> None:
    """The mean is what it should be, within four standard errors by the means of batches."""
    means = np.array([batch.mean() for batch in np.array_split(values[WARM:], BATCHES)])
    error = means.std(ddof=1) / np.sqrt(BATCHES)
    assert means.mean() == pytest.approx(expected, abs=4 * error + 1e-9)
    assert error < 0.2 * expected + 0.02  # else this says nothing


def within_exponential(load: float, wait: float) -> float:
    """M/M/1: the share of customers that wait at most this many service times."""
    return 1 - load * exp(-(1 - load) * wait)


def within_constant(load: float, wait: float) -> float:
    """M/D/1, by Erlang."""
    terms = [
        (load * (k - wait)) ** k / factorial(k) * exp(-load * (k - wait)) for k in range(floor(wait) + 1)
    ]
    return (1 - load) * sum(terms)


@pytest.mark.parametrize(
    ("station", "load"), [("broker", 0.3), ("broker", 0.6), ("broker", 0.8), ("shard", 0.7)]
)
def test_exponential_service(station: str, load: float) -> None:
    name = {"broker": "request", "shard": "exchange"}[station]
    waited = waits(served(load, EXPONENTIAL, **{name: SERVICE}), station, EXPONENTIAL) / SERVICE
    agrees(waited, load / (1 - load))
    agrees((waited > 1e-6).astype(float), load)
    for share in (0.8, 0.9, 0.95):
        wait = max(0.5, np.log(load / (1 - share)) / (1 - load))
        agrees((waited <= wait).astype(float), within_exponential(load, wait))


@pytest.mark.parametrize(
    ("station", "load"), [("publisher", 0.3), ("publisher", 0.6), ("publisher", 0.8), ("broker", 0.7)]
)
def test_constant_service(station: str, load: float) -> None:
    name = {"publisher": "call", "broker": "request"}[station]
    waited = waits(served(load, CONSTANT, **{name: SERVICE}), station, CONSTANT) / SERVICE
    agrees(waited, load / (2 * (1 - load)))
    agrees((waited > 1e-6).astype(float), load)
    for wait in (0.5, 1.5, 4.0):
        agrees((waited <= wait).astype(float), within_constant(load, wait))


def test_utilisation_and_littles_law() -> None:
    load = 0.7
    outcome = served(load, EXPONENTIAL, request=SERVICE)
    arrived, gone = outcome.entered, outcome.logged
    # How many are there, at moments that have nothing to do with them.
    moments = np.linspace(arrived[WARM], arrived[-1], 20_000)
    there = np.searchsorted(arrived, moments, side="right") - np.searchsorted(gone, moments, side="right")
    rate = len(arrived) / (arrived[-1] - arrived[0])
    assert there.mean() == pytest.approx(rate * (gone - arrived)[WARM:].mean(), rel=0.05)
    agrees(there.astype(float), load / (1 - load))
    agrees((there > 0).astype(float), load)
    for number in (1, 2, 5):
        agrees((there == number).astype(float), (1 - load) * load**number)
