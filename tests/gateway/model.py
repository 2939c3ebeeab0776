"""What is around the handover, as a model: a log, publishers, Redis, a lagging store, gateways.

No I/O and no clock. Whatever takes time goes over a wire: what is sent with a key arrives in order, what is
sent without may overtake. An event is a partition and an offset; a partition's other offsets are holes: other
sources, poison, duplicates, transaction markers. Partitions are added, and then the source's publishers write
elsewhere, each once it has noticed; one publisher hashes as it likes. Transactions hold a partition back, and
are committed or aborted. Others announce on the same channels: events of another log, and such that nobody
has written.

:class:`Gateway` drives ``Stream`` and ``Join`` as their docstrings say. Its wrong variants are in the tests.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from operator import attrgetter
from typing import Any, NamedTuple, Protocol

from dualstream_lab.gateway.handover import Join, Phase, Stream
from dualstream_lab.gateway.past import Positions, Refusal, later
from tests.gateway.oracle import Client, Event, Frame, Outcome

Act = Callable[[], object]
SOURCE = "repo:octo/hello"
HOMES = {2: 1, 3: 2, 4: 0, 5: 4}
"""Where the source is written to, by the number of partitions."""
_MARGIN = 5


class Wires(Protocol):
    """Everything that takes time."""

    def send(self, kind: str, key: object, act: Act) -> None:
        """Do it later; in order with what has the same kind and key, unless the key is None."""


class Row(NamedTuple):
    partition: int
    offset: int
    id: str
    ts: int = 0


class Place(NamedTuple):
    position: int
    floor: int
    hole: int = 0
    reason: str | None = None


class Page(NamedTuple):
    places: dict[int, Place]
    first: Positions
    rows: list[Row]
    through: Positions
    more: bool

    @property
    def below(self) -> dict[int, int]:
        """The last offsets that were removed."""
        return {partition: place.floor - 1 for partition, place in self.places.items()}


class Said(NamedTuple):
    """An announcement. ``id``: what the log has there, or something else."""

    log: str | None
    pub: str
    partition: int
    offset: int
    id: str


def events_of(rows: Iterable[Row]) -> list[Event]:
    return [(row.partition, row.offset) for row in rows]


@cache
def id_of(partition: int, offset: int) -> str:
    return f"id-{partition}-{offset}"


class Partition:
    """``end`` is the high watermark, ``stable`` where committed records end, ``events`` are the source's."""

    def __init__(self) -> None:
        self.length = 0
        self.end = 0
        self.events: list[int] = []
        self.times: dict[int, int] = {}
        self.open: dict[int, list[int]] = {}
        """Transactions, by their first offset, and the source's events in them."""
        self.aborted: set[int] = set()

    @property
    def stable(self) -> int:
        return min(self.end, *self.open) if self.open else self.end

    def __iter__(self) -> Iterator[int]:
        return iter(self.events)


class Log:
    """Partitions that may become more."""

    def __init__(self, wires: Wires, *, partitions: int, acks_all: bool) -> None:
        self.partitions = [Partition() for _ in range(partitions)]
        self._wires = wires
        self._acks_all = acks_all
        self._time = 0

    @property
    def ends(self) -> dict[int, int]:
        """Where committed records end."""
        return {number: partition.stable for number, partition in enumerate(self.partitions)}

    @property
    def lengths(self) -> dict[int, int]:
        return {number: partition.length for number, partition in enumerate(self.partitions)}

    @property
    def events(self) -> dict[int, list[int]]:
        return {number: partition.events for number, partition in enumerate(self.partitions)}

    def append(self, number: int, publisher: Publisher | None) -> None:
        """An event of the source; without a publisher, a record that is none."""
        partition = self.partitions[number]
        offset = self._add(partition)
        if publisher is not None:
            insort(partition.events, offset)
            if not self._acks_all:
                self._wires.send("ack", publisher, partial(publisher.acked, number, offset))
        self._wires.send("replicate", partition, partial(self._replicated, number, offset, publisher))

    def transact(self, number: int, records: int) -> Callable[[bool], None]:
        """Open a transaction with so many events of the source; how to end it (True: commit)."""
        partition = self.partitions[number]
        offsets = [self._add(partition) for _ in range(records)]
        partition.open[offsets[0]] = offsets
        for offset in offsets:
            self._wires.send("replicate", partition, partial(self._replicated, number, offset, None))
        return partial(self._end, number, offsets)

    def _add(self, partition: Partition) -> int:
        offset, partition.length = partition.length, partition.length + 1
        self._time += 1
        partition.times[offset] = self._time
        return offset

    def _end(self, number: int, offsets: list[int], commit: bool) -> None:
        partition = self.partitions[number]
        if partition.open.pop(offsets[0], None) is None:
            return
        for offset in offsets:
            if commit:
                insort(partition.events, offset)
            else:
                partition.aborted.add(offset)
        self.append(number, None)  # the marker

    def _replicated(self, number: int, offset: int, publisher: Publisher | None) -> None:
        self.partitions[number].end = offset + 1
        if publisher is not None and self._acks_all:
            self._wires.send("ack", publisher, partial(publisher.acked, number, offset))


class Publisher:
    """Announces what is acknowledged, in order; its number counts also what Redis then loses.

    ``repeats`` is asked whether it does so twice, as after a time-out. ``count``: the partitions that it has
    noticed; with ``stray`` it writes into any of them.
    """

    def __init__(
        self, name: str, redis: Redis, wires: Wires, repeats: Callable[[], bool], count: int
    ) -> None:
        self.nonce = name
        self.count = count
        self._number = 0
        self._repeats = repeats
        self._redis = redis
        self._wires = wires

    @property
    def home(self) -> int:
        return HOMES[self.count]

    def acked(self, partition: int, offset: int) -> None:
        self._number += 1
        said = Said("ours", f"{self.nonce}:{self._number}", partition, offset, id_of(partition, offset))
        for _ in range(2 if self._repeats() else 1):
            self._wires.send("announce", self, partial(self._redis.publish, said))

    def restart(self) -> None:
        self.nonce, self._number = self.nonce + "'", 0


class Redis:
    """``loses`` is asked of each announcement, and once more for each gateway."""

    def __init__(self, wires: Wires, loses: Callable[[], bool]) -> None:
        self.down = False
        self._loses = loses
        self._wires = wires
        self._subscribed: dict[Gateway, int] = {}

    def publish(self, said: Said) -> None:
        if self.down or self._loses():
            return
        for gateway, connection in self._subscribed.items():
            if not self._loses():
                self._wires.send("heard", gateway, partial(gateway.heard, connection, said))

    def subscribe(self, gateway: Gateway, connection: int) -> None:
        if self.down or connection != gateway.connection:
            return
        self._subscribed[gateway] = connection
        self._wires.send("heard", gateway, partial(gateway.confirmed, connection))

    def unsubscribe(self, gateway: Gateway) -> None:
        self._subscribed.pop(gateway, None)

    def cut(self, gateway: Gateway) -> None:
        """Its connection is gone, with all that was on it. The gateway finds out later."""
        if self._subscribed.pop(gateway, None) is not None:
            gateway.connection += 1
            self._wires.send("drop", gateway, partial(gateway.dropped, gateway.connection))

    def fail(self) -> None:
        self.down = True
        for gateway in list(self._subscribed):
            self.cut(gateway)


class Store:
    """Has the log below its positions, but for what retention removed below the floors.

    ``count``: the partitions that its processor has noticed.
    """

    def __init__(self, log: Log, *, limit: int) -> None:
        self.count = len(log.partitions)
        self.positions: dict[int, int] = dict.fromkeys(range(self.count), 0)
        self.floors: dict[int, int] = {}
        self.limit = limit
        self._log = log

    def move(self, partition: int, position: int) -> None:
        """To there, as far as committed records go."""
        most = min(position, self.end(partition))
        self.positions[partition] = max(most, self.positions[partition])

    def end(self, partition: int) -> int:
        return self._log.partitions[partition].stable

    def prune(self, partition: int, floor: int) -> None:
        self.floors[partition] = max(self.floors.get(partition, 0), min(floor, self.positions[partition]))

    def grow(self) -> None:
        for partition in range(self.count, len(self._log.partitions)):
            self.positions[partition] = 0
        self.count = len(self._log.partitions)

    def rows(self, number: int, after: int) -> list[Row]:
        partition, position = self._log.partitions[number], self.positions[number]
        first = bisect_right(partition.events, max(after, self.floors.get(number, 0) - 1))
        last = bisect_left(partition.events, position)
        return [
            Row(number, offset, id_of(number, offset), partition.times[offset])
            for offset in partition.events[first:last]
        ]

    def page(self, after: Positions) -> Page:
        places = {p: Place(position, self.floors.get(p, 0)) for p, position in self.positions.items()}
        parts = [self.rows(number, after.get(number, -1)) for number in places]
        found = sorted((row for part in parts for row in part), key=attrgetter("ts"))
        rows = found[: self.limit]
        through = {number: place.position - 1 for number, place in places.items()}
        for row in reversed(found[self.limit :]):
            through[row.partition] = row.offset - 1
        first = {
            number: partition.events[0]
            for number, partition in enumerate(self._log.partitions[: self.count])
            if partition.events and partition.events[0] < self.positions[number]
        }
        return Page(places, first, rows, through, len(found) > self.limit)


@dataclass(eq=False)
class Session:
    """A client's connection: all that was written to it."""

    client: Client
    join: Join
    frames: list[Frame] = field(default_factory=list)
    gone: bool = False
    looks: int = 0
    asked: Positions | None = None
    """What it knew when it came."""
    kept: Any = None
    """What a wrong gateway remembers."""


class Gateway:
    """``looks``: how often a client may find the store behind its fence before it is refused."""

    wait = True  # an answer of the store that the stream is beyond is read again
    step = 3  # events that are told in one step

    def __init__(self, world: World, *, limit: int | None, looks: int, repairs: bool, checks: bool) -> None:
        self.world = world
        self.connection = 0
        self.looks = looks
        self.repairs = repairs
        self.checks = checks
        self.sessions: list[Session] = []
        self.live: list[Session] = []
        self._limit = {} if limit is None else {"limit": limit}
        self.waiting: list[Session] = []
        self.counts = {len(world.log.partitions)}
        self.known: dict[int, int] = {}
        self._anew()

    def _anew(self) -> None:
        self.stream: Stream[tuple[Event, str]] = self.new_stream()
        self.seen_in: set[int] = set()
        self.begun = self.subscribed = self._subscribing = self._repairing = self._again = False

    def new_stream(self) -> Stream[tuple[Event, str]]:
        return Stream(SOURCE, **self._limit)

    # --- where the source is

    @property
    def homes(self) -> tuple[int, ...]:
        return tuple({HOMES[count] for count in self.counts})

    @property
    def partitions(self) -> set[int]:
        return {*self.homes, *self.seen_in}

    def grow(self, count: int) -> None:
        """It noticed that the topic has more partitions."""
        self.counts.add(count)
        if self.begun:
            self.ask(partial(self._suspect, self.stream))

    def named(self, offsets: Positions, more: Iterable[int] = ()) -> dict[int, int]:
        """The cursor of these places; ``more``: partitions that it names beside the source's."""
        return {partition: offsets.get(partition, -1) for partition in sorted({*self.partitions, *more})}

    # --- a client's way in

    def connect(self, client: Client) -> Session:
        session = Session(client, Join(client.cursor), asked=client.cursor)
        self.sessions.append(session)
        if self.subscribed:
            self.admit(session)
        else:
            self.waiting.append(session)
            self.subscribe()
        return session

    def subscribe(self) -> None:
        if not self._subscribing:
            self._subscribing = True
            self.world.send("subscribe", None, partial(self.world.redis.subscribe, self, self.connection))
            self.world.send("patience", None, partial(self._still_unsubscribed, self.connection))

    def _still_unsubscribed(self, connection: int) -> None:
        """Redis is away: whoever waits is let in without it, and it is asked again."""
        if connection == self.connection and not self.subscribed:
            self._subscribing = False
            self._again = True
            self._admit_waiting()
            if self.sessions:
                self.subscribe()

    def _admit_waiting(self) -> None:
        waiting, self.waiting = self.waiting, []
        for session in waiting:
            self.admit(session)

    def confirmed(self, connection: int) -> None:
        if connection != self.connection or self.subscribed:
            return
        self.subscribed, self._subscribing = True, False
        self._admit_waiting()
        if self._again:  # not the first: something may have been lost before it
            self.ask(partial(self._suspect, self.stream))

    def dropped(self, connection: int) -> None:
        if connection == self.connection:
            self.subscribed = self._subscribing = False
            self._again = True
            if self.sessions:
                self.subscribe()

    def ask(self, then: Callable[[dict[int, int]], object]) -> None:
        """Where the log ends, from now on."""
        send, log = self.world.send, self.world.log
        send("ask", None, lambda: send("ask", None, partial(self._answered, then, log.ends)))

    def _answered(self, then: Callable[[dict[int, int]], object], ends: dict[int, int]) -> None:
        self.known.update({p: end for p, end in ends.items() if end > self.known.get(p, -1)})
        then(ends)

    def admit(self, session: Session) -> None:
        """First where the store has seen the source."""
        send, store = self.world.send, self.world.store
        send("read", None, lambda: send("read", None, partial(self._placed, session, store.page({}))))

    def _placed(self, session: Session, page: Page) -> None:
        if not session.gone:
            self.seen_in |= page.first.keys()
            self.ask(partial(self.fenced, session, page))

    def fenced(self, session: Session, page: Page, ends: dict[int, int]) -> None:
        if session.gone:
            return
        partitions = [p for p in self.partitions if p in ends]
        if not self.begun:
            self.begun = True
            positions = {partition: place.position for partition, place in page.places.items()}
            self.stream.begin({**positions, **{partition: ends[partition] for partition in partitions}})
            self.look()  # at what was suspected before
        named = [p for p in session.join.after if p in ends]
        session.join.fenced({partition: ends[partition] for partition in {*partitions, *named}})
        if session.join.phase is Phase.LIVE:
            self.enter(session, [])
        else:
            self.read(session)

    def pages(self, afters: list[Positions], then: Callable[[list[Page]], object]) -> None:
        """One snapshot for all; answers may overtake each other."""
        send, store = self.world.send, self.world.store
        send("read", None, lambda: send("read", None, partial(then, [store.page(after) for after in afters])))

    def read(self, session: Session) -> None:
        if not session.gone:
            self.pages([session.join.after, self.stream.confirmed], partial(self.found, session))

    def found(self, session: Session, pages: list[Page]) -> None:
        page, ours = pages
        join, stream = session.join, self.stream
        if session.gone:
            return
        self.settle(ours)
        rows: list[Row] = []
        if len(page.rows) > self.step and (rows := list(join.read_ahead(page, self.homes))):
            self.send_ahead(session, rows, page)
            return
        if stream.level(page) or not self.wait:
            rows = list(join.read(page, self.homes))
        if join.phase is not Phase.LIVE:
            session.looks += 1
            there = all(p in page.places and page.places[p].position >= e for p, e in join.fence.items())
            if session.looks < self.looks or there:
                self.world.send("pause", None, partial(self.read, session))
                return
            join.refuse(Refusal.STORE_LAG)
        self.enter(session, rows, page)

    def send_ahead(self, session: Session, rows: list[Row], page: Page) -> None:
        """A long past, and what came since is read after it."""
        if not session.asked:
            session.frames.append(Frame("floor", None, page.below))
        session.frames += self.found_frames(rows, session.join.known)
        session.asked = session.join.after
        self.world.send("pause", None, partial(self.read, session))

    def enter(self, session: Session, rows: list[Row], page: Page | None = None) -> None:
        """The step into the stream. Cursors of the past are each row's own: a connection may end anywhere."""
        join = session.join
        after = self.cursor(join)
        heard = self.stream.received_after(after)
        if join.earliest and page is not None and join.refusal is None:
            session.frames.append(Frame("floor", None, page.below))
        session.frames += self.found_frames(rows, join.known)
        cursor = self.named(after, join.fence)
        self.world.entered(session, cursor, [*events_of(rows), *(event for event, _ in heard)], page)
        # Said before anything else has a cursor: whoever is cut off here must know of it.
        session.frames.append(Frame("refused" if join.refusal else "subscribed", None, cursor))
        session.frames += [self.frame(event, name, cursor) for event, name in heard]
        self.live.append(session)

    def cursor(self, join: Join) -> Positions:
        """Everything after it is told, or will be."""
        return later(join.after, self.stream.confirmed)

    def found_frames(self, rows: list[Row], known: Positions) -> list[Frame]:
        """A late event's cursor is its own place: a connection may end between two of them."""
        at = dict(known)
        frames = []
        for row in rows:
            at[row.partition] = row.offset
            frames.append(self.frame((row.partition, row.offset), row.id, self.row_cursor(dict(at))))
        return frames

    def row_cursor(self, cursor: dict[int, int]) -> dict[int, int]:
        return cursor

    def frame(self, event: Event, name: str, cursor: dict[int, int]) -> Frame:
        """One that the log does not have counts for nothing; one of another log must not be told."""
        if name.startswith("theirs"):
            self.world.outcome.wrong.append(f"{name} is told")
        return Frame("event", event if name == id_of(*event) else None, cursor)

    # --- the stream

    def tell(self, frame: Frame) -> None:
        for session in self.live:
            session.frames.append(frame)

    def heard(self, connection: int, said: Said) -> None:
        if connection != self.connection:
            return
        if said.log == "theirs":
            self.world.outcome.foreign += 1
        elif said.log is None:
            self.hint()
        elif said.offset < self.known.get(said.partition, -_MARGIN) + _MARGIN:
            self.take(said)
        else:
            self.ask(partial(self._verify, self.stream, said))

    def hint(self) -> None:
        """It says only that there is something."""
        self.ask(partial(self._suspect, self.stream))

    def _verify(self, stream: Stream[tuple[Event, str]], said: Said, ends: dict[int, int]) -> None:
        if said.offset >= ends.get(said.partition, 0):
            self.world.outcome.beyond += 1
        elif stream is self.stream:
            self.take(said)

    def take(self, said: Said) -> None:
        event = said.partition, said.offset
        self.stream.count(said.pub)
        if self.stream.receive(*event, said.id, (event, said.id)):
            self.tell(self.frame(event, said.id, self.named(self.stream.confirmed)))
        if self.stream.doubtful:
            self.stream.doubtful = False
            self.hint()
        self.look()

    def _suspect(self, stream: Stream[tuple[Event, str]], ends: dict[int, int]) -> None:
        stream.suspect({partition: ends[partition] for partition in self.partitions if partition in ends})
        self.look()

    def look(self) -> None:
        if self.stream.needs:
            self._repair()

    def check(self) -> None:
        """The periodic look, also when nothing is suspected."""
        if self.checks:
            self._repair()

    def _repair(self) -> None:
        if self.repairs and self.begun and not self._repairing:
            self._repairing = True
            self._compare(self.stream)

    def _compare(self, stream: Stream[tuple[Event, str]]) -> None:
        if stream is self.stream:
            self.pages([stream.confirmed], partial(self._compared, stream))

    def _compared(self, stream: Stream[tuple[Event, str]], pages: list[Page]) -> None:
        if stream is not self.stream:
            return
        (page,) = pages
        self.settle(page)
        if page.more or stream.needs or not stream.level(page):
            self.world.send("pause", None, partial(self._compare, stream))
        else:
            self._repairing = False

    def settle(self, page: Page) -> None:
        stream = self.stream
        self.seen_in |= page.first.keys()
        if stream.lost(page, self.homes):
            self.tell(Frame("lost", None, page.below))
            self.world.outcome.lost += 1
        before, known = stream.confirmed, self.named(stream.confirmed)
        missing = stream.missing(page.rows)
        late = stream.repair(page, missing[: self.step], left=missing[self.step :])
        self.world.outcome.late += len(late)
        for frame in self.found_frames(late, known):
            self.tell(frame)
        if stream.confirmed != before:
            self.tell(Frame("sync", None, self.named(stream.confirmed)))
        self.world.settled(self)

    # --- leaving

    def leave(self, session: Session) -> None:
        session.gone = True
        for sessions in (self.sessions, self.live, self.waiting):
            if session in sessions:
                sessions.remove(session)

    def unsubscribe(self) -> None:
        """Nobody is there any more: forget the source."""
        self.world.redis.unsubscribe(self)
        self.connection += 1
        self._anew()


class World:
    """One run. ``gateway``: the kind of the two; ``limit``: of their streams; ``page``: rows of an answer.

    ``repairs=False``: suspicions are not followed up either; ``checks=False``: only they are.
    """

    def __init__(
        self,
        wires: Wires,
        *,
        gateway: type[Gateway] = Gateway,
        store: type[Store] = Store,
        loses: Callable[[], bool] = lambda: False,
        repeats: Callable[[], bool] = lambda: False,
        repairs: bool = True,
        checks: bool = True,
        acks_all: bool = True,
        limit: int | None = None,
        page: int = 1000,
        looks: int = 1000,
        partitions: int = 2,
    ) -> None:
        self.send = wires.send
        self.outcome = Outcome()
        self.log = Log(wires, partitions=partitions, acks_all=acks_all)
        self.redis = Redis(wires, loses)
        self.store = store(self.log, limit=page)
        self.publishers = [Publisher(name, self.redis, wires, repeats, partitions) for name in "abc"]
        self.gateways = [
            gateway(self, limit=limit, looks=looks, repairs=repairs, checks=checks) for _ in range(2)
        ]
        self.clients: list[Client] = []
        self.sessions: dict[Client, tuple[Gateway, Session]] = {}
        self._ends: list[Callable[[bool], None]] = []

    # --- what is written

    def publish(self, number: int | None, partition: int | None = None) -> None:
        """By a publisher, at home or where it likes; None: something else, at the first one's home."""
        if number is None:
            self.log.append(self.publishers[0].home if partition is None else partition, None)
            return
        publisher = self.publishers[number]
        if partition is not None:
            self.outcome.elsewhere += 1
        self.log.append(publisher.home if partition is None else partition % publisher.count, publisher)

    def transact(self, partition: int, records: int) -> None:
        """Open a transaction."""
        self._ends.append(self.log.transact(partition % len(self.log.partitions), records))

    def end_transaction(self, *, commit: bool) -> None:
        """Of those that are open the first."""
        if self._ends:
            self._ends.pop(0)(commit)
            self.outcome.aborted += not commit

    def grow(self) -> None:
        """One partition more; everybody notices in its own time."""
        if len(self.log.partitions) + 1 not in HOMES:
            return
        self.log.partitions.append(Partition())
        self.outcome.grown += 1
        count = len(self.log.partitions)
        self.send("notice", "store", self.store.grow)
        for publisher in self.publishers:
            self.send("notice", publisher, partial(setattr, publisher, "count", count))
        for gateway in self.gateways:
            self.send("notice", gateway, partial(gateway.grow, count))

    def disturb(self, log: str | None, partition: int, ahead: int, name: str) -> None:
        """Somebody else announces something at a place near the end, or far beyond it."""
        partition %= len(self.log.partitions)
        offset = max(0, self.log.partitions[partition].length + ahead)
        if log == "theirs":
            name = f"theirs-{partition}-{offset}"
        self.redis.publish(Said(log, "x:1", partition, offset, name or id_of(partition, offset)))

    # --- who comes and goes

    def connect(self, client: Client, gateway: Gateway) -> None:
        """A new client, or one that comes again."""
        if client not in self.clients:
            self.clients.append(client)
        else:
            self.outcome.resumed += 1
        self.sessions[client] = gateway, gateway.connect(client)

    def disconnect(self, client: Client, unread: int = 0) -> None:
        """Its connection ends, and the last frames with it."""
        gateway, session = self.sessions.pop(client)
        gateway.leave(session)
        frames = session.frames[: max(0, len(session.frames) - unread)]
        self._judge(frames)
        client.receive(frames, self.log.events)
        self.outcome.told += len(session.frames)

    def _judge(self, frames: list[Frame]) -> None:
        for frame in frames:
            if frame.event is None:
                continue
            partition, offset = frame.event
            if offset in self.log.partitions[partition].aborted:
                self.outcome.wrong.append(f"{frame.event} was aborted, and is told")

    def entered(self, session: Session, cursor: Positions, told: list[Event], page: Page | None) -> None:
        """Nobody skips what is not in the log yet; a refusal has a reason, and tells nothing of the past."""
        join, after = session.join, session.asked
        why, wrong = join.refusal, self.outcome.wrong
        self.outcome.entered[why.value if why else "recovered"] += 1
        ends = {p: partition.end for p, partition in enumerate(self.log.partitions)}
        if why is None:
            known = after or {}
            if any(offset >= ends[p] and offset != known.get(p) for p, offset in cursor.items()):
                wrong.append(f"{cursor} is told as a cursor, and the log ends at {ends}")
            return
        if any(offset < join.fence.get(partition, 0) for partition, offset in told):
            wrong.append(f"{why} told something of the past")
        if not self._is_true(why, after, join, page):
            wrong.append(f"{why} of a client that knows {after}, with fence {join.fence} and {page}")

    def _is_true(self, why: Refusal, after: Positions | None, join: Join, page: Page | None) -> bool:
        if why is Refusal.EPOCH_CHANGED:
            return after is not None and any(o >= join.fence.get(p, 0) for p, o in after.items())
        if after is None or page is None:
            return False
        if why is Refusal.STORE_LAG:
            return any(p not in page.places or page.places[p].position < e for p, e in join.fence.items())
        if why is Refusal.RETENTION:
            floors = {p: place.floor for p, place in page.places.items()}
            return bool(after) and any(after.get(p, -1) + 1 < floor for p, floor in floors.items())
        return why is Refusal.TOO_FAR_BEHIND and page.more

    def settled(self, gateway: Gateway) -> None:
        """What a stream keeps is what the store may still lack, and never more than its limit."""
        stream = gateway.stream
        if stream.pending > stream.limit:
            self.outcome.wrong.append(f"{stream.pending} pending beyond {stream.confirmed}")

    def rest(self) -> None:
        """What is open is ended, and all are as far as the log."""
        while self._ends:
            self.end_transaction(commit=True)

    def finish(self) -> Outcome:
        """Everything came to rest: whoever is connected must know all that is owed."""
        outcome, events = self.outcome, self.log.events
        outcome.events = sum(map(len, events.values()))
        lengths = {p: length - 1 for p, length in self.log.lengths.items()}
        for gateway in self.gateways:
            outcome.overflowed += gateway.stream.overflowed
            if len(gateway.live) != len(gateway.sessions):
                outcome.wrong.append("a client never came in")
            if gateway.repairs and gateway.begun:
                confirmed = {p: gateway.stream.confirmed.get(p, -1) for p in lengths}
                if (gateway.checks and confirmed != lengths) or gateway.stream.needs:
                    outcome.wrong.append("a stream never came to rest")
        for client in list(self.sessions):
            self.disconnect(client)
            outcome.gaps += len(client.unknown - client.known) + len(client.missing(events, lengths))
        for client in self.clients:
            outcome.duplicates += len(client.duplicates)
            outcome.unheld += len(client.unknown)
        return outcome
