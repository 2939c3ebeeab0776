"""Runs that differ in what tells the costs apart, of costs that are known."""

from __future__ import annotations

from pathlib import Path

from dualstream_lab.simulation import Costs, Deployment, record, simulate
from dualstream_lab.workload import Workload

TRUE = Costs(
    call=60e-6, event=8e-6, request=450e-6, batch=25e-6, record=0.9e-6, record_byte=0.8e-9, broker_noise=0.4,
    pauses=30.0, pause=6e-3, kafka_rtt=200e-6, exchange=45e-6, publish=3e-6, deliver=2e-6, redis_noise=0.3,
    redis_rtt=150e-6, receive_delay=180e-6, poll=300e-6, consume=5e-6, fetch_delay=500e-6,
)  # fmt: skip
SETTINGS = (  # events/s, events a call, bytes, subscribers, publishers
    (3_000, 1, 300, 1, 1),
    (10_000, 10, 300, 4, 1),
    (30_000, 20, 2_000, 1, 2),
    (40_000, 50, 1_000, 2, 4),
    (4_000, 2, 6_000, 1, 1),
)


def sweep(root: Path, costs: Costs = TRUE) -> list[Path]:
    """Their directories."""
    return [
        record(
            simulate(
                Workload(rate=rate, duration=2, batch=batch, payload_bytes=size, seed=seed),
                Deployment(publishers=publishers, subscribers=subscribers),
                costs,
                seed=seed,
            ),
            root,
        ).path
        for seed, (rate, batch, size, subscribers, publishers) in enumerate(SETTINGS)
    ]
