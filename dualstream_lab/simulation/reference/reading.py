"""The consumers of the reference."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator

    import simpy

    from dualstream_lab.simulation.reference.world import World

__all__ = ["Consumers"]

_MOST: Final = 10_000  # records that one poll takes


class Consumers:
    """Members of a group, each with its partitions; they poll, and are busy with what they got."""

    def __init__(self, world: World) -> None:
        self._world = world
        members = range(world.deployment.consumers)
        self._readable: list[deque[int]] = [deque() for _ in members]
        self._wake = [world.env.event() for _ in members]
        for member in members:
            world.env.process(self._read(member))

    def append(self, events: list[int]) -> None:
        """They came into the log, partition by partition; consumers see them when their copies are there."""
        costs = self._world.costs
        readable = costs.until_copied(self._world.deployment.copies) + costs.fetch_trip
        if self._wake:
            self._world.after(readable, lambda: self._show(events))

    def _show(self, events: list[int]) -> None:
        for seq in events:
            member = int(self._world.notes.partition[seq]) % len(self._wake)
            self._readable[member].append(seq)
            if not self._wake[member].triggered:
                self._wake[member].succeed()

    def _read(self, member: int) -> Generator[simpy.Event, Any, None]:
        env, costs, readable = self._world.env, self._world.costs, self._readable[member]
        while True:
            while not readable:
                self._wake[member] = env.event()
                yield self._wake[member]
            taken = [readable.popleft() for _ in range(min(_MOST, len(readable)))]
            self._world.notes.consumed[taken] = env.now
            yield env.timeout(costs.poll + costs.consume * len(taken))
