"""The pipeline event by event, as plain as can be: what the fast model is measured by. For small runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import simpy

from dualstream_lab.simulation.calibration import Calibration
from dualstream_lab.simulation.engine.outcome import Case, Outcome
from dualstream_lab.simulation.engine.simulate import setup_of
from dualstream_lab.simulation.parameters import Costs, Deployment
from tests.simulation.reference.notifying import Audience, Notifier, Shard
from tests.simulation.reference.publishing import Brokers, Consumers, Publisher
from tests.simulation.reference.world import Notes, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dualstream_lab.faults.spec import FaultSpec
    from dualstream_lab.simulation.random_draws import Draws
    from dualstream_lab.workload import Workload

__all__ = ["reference"]


def reference(
    workload: Workload,
    deployment: Deployment | None = None,
    costs: Costs | None = None,
    faults: Sequence[FaultSpec] = (),
    seed: int = 1,
    *,
    draws: Draws | None = None,
) -> Outcome:
    """Every event of a run, as :func:`simulate` has it, up to rounding; ``utilization`` is left out.

    ``draws``: instead of the seed's. Raises ConfigError as :func:`simulate`.
    """
    case = Case(
        workload=workload, deployment=deployment or Deployment(), costs=costs or Calibration.shipped().costs,
        faults=tuple(faults), seed=seed,
    )  # fmt: skip
    setup = setup_of(case)
    drawn, slots = draws or setup.draws, list(workload.slots())
    intended, source, size = (
        np.concatenate([getattr(one, name) for one in slots]) for name in ("intended", "source", "size")
    )
    notes = Notes(intended / 1e9, source, size, drawn)
    world = World(simpy.Environment(), setup.deployment, setup.costs, setup.outages, drawn, notes)
    _run(world, workload.batch)
    return _outcome(notes, world)


def _run(world: World, batch: int) -> None:
    notes, deployment = world.notes, world.deployment
    brokers = Brokers(world, Consumers(world).append)
    audience = Audience(world)
    shards = [Shard(world, number, audience) for number in range(deployment.shards)]
    notifiers = [
        [Notifier(world, number, shard) for shard in shards] for number in range(deployment.publishers)
    ]

    def acknowledged(publisher: int, events: list[int]) -> None:
        for shard in sorted({int(notes.shard[seq]) for seq in events}):
            notifiers[publisher][shard].join([seq for seq in events if notes.shard[seq] == shard])

    calls = [range(first, first + batch) for first in range(0, len(notes.intended), batch)]
    for number in range(deployment.publishers):
        publisher = Publisher(world, number, brokers, acknowledged)
        world.env.process(publisher.loop(calls[number :: deployment.publishers]))
    world.env.run()


def _outcome(notes: Notes, world: World) -> Outcome:
    recovered = np.isnan(notes.live) & ~np.isnan(notes.repaired)
    away = world.draws.away.tolist()
    noted = (
        "intended", "sent", "entered", "settled", "acked", "outcome", "source", "size", "partition", "offset",
        "logged", "consumed", "dropped", "reason", "resyncs",
    )  # fmt: skip
    return Outcome(
        seq=np.arange(len(recovered)), **{name: getattr(notes, name) for name in noted},
        delivered=np.where(recovered, notes.repaired, notes.live), recovered=recovered,
        away=tuple((shard, *span) for shard in range(world.deployment.shards) for span in away),
    )  # fmt: skip
