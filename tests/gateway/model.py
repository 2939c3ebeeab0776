"""What is around the handover, as a model: a log, publishers, Redis, a lagging store, gateways.

No I/O and no clock. Whatever takes time goes over a wire: what is sent with a key arrives in order, what is
sent without may overtake. Every offset of the source's rows is an event's id; the partition's other offsets
are holes: other sources, poison, duplicates, transaction markers.

:class:`Gateway` drives ``Stream`` and ``Join`` as their docstrings say. Its wrong variants are in the tests.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from dualstream_lab.gateway.handover import Join, Phase, Refusal, Stream
from tests.gateway.oracle import Client, Frame, Outcome

Act = Callable[[], object]
SOURCE = "repo:octo/hello"


class Wires(Protocol):
    """Everything that takes time."""

    def send(self, kind: str, key: object, act: Act) -> None:
        """Do it later; in order with what has the same kind and key, unless the key is None."""


class Row(NamedTuple):
    offset: int


class Page(NamedTuple):
    position: int
    floor: int
    rows: list[Row]
    more: bool


def offsets(rows: Iterable[Row]) -> list[int]:
    return [row.offset for row in rows]


class Log:
    """One partition. ``end`` is the high watermark, ``events`` are the offsets of the source's events."""

    def __init__(self, wires: Wires, *, acks_all: bool) -> None:
        self.length = 0
        self.end = 0
        self.events: list[int] = []
        self._wires = wires
        self._acks_all = acks_all

    def append(self, publisher: Publisher | None) -> None:
        """An event of the source; without a publisher, a record that is none."""
        offset, self.length = self.length, self.length + 1
        if publisher is not None:
            self.events.append(offset)
            if not self._acks_all:
                self._wires.send("ack", publisher, partial(publisher.acked, offset))
        self._wires.send("replicate", self, partial(self._replicated, offset, publisher))

    def _replicated(self, offset: int, publisher: Publisher | None) -> None:
        self.end = offset + 1
        if publisher is not None and self._acks_all:
            self._wires.send("ack", publisher, partial(publisher.acked, offset))


class Publisher:
    """Announces what is acknowledged, in order; its number counts also what Redis then loses.

    ``repeats`` is asked whether it does so twice, as after a time-out.
    """

    def __init__(self, name: str, redis: Redis, wires: Wires, repeats: Callable[[], bool]) -> None:
        self.nonce = name
        self._number = 0
        self._repeats = repeats
        self._redis = redis
        self._wires = wires

    def acked(self, offset: int) -> None:
        self._number += 1
        pub = f"{self.nonce}:{self._number}"
        for _ in range(2 if self._repeats() else 1):
            self._wires.send("announce", self, partial(self._redis.publish, pub, offset))

    def restart(self) -> None:
        self.nonce, self._number = self.nonce + "'", 0


class Redis:
    """``loses`` is asked of each announcement, and once more for each gateway."""

    def __init__(self, wires: Wires, loses: Callable[[], bool]) -> None:
        self.down = False
        self._loses = loses
        self._wires = wires
        self._subscribed: dict[Gateway, int] = {}

    def publish(self, pub: str, offset: int) -> None:
        if self.down or self._loses():
            return
        for gateway, connection in self._subscribed.items():
            if not self._loses():
                self._wires.send("heard", gateway, partial(gateway.heard, connection, pub, offset))

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
    """Has the log below ``position``, but for what retention removed below ``floor``."""

    def __init__(self, log: Log, *, limit: int) -> None:
        self.position = 0
        self.floor = 0
        self.limit = limit
        self._log = log

    def page(self, after: int) -> Page:
        events = self._log.events
        first = bisect_right(events, max(after, self.floor - 1))
        last = bisect_left(events, self.position)
        rows = [Row(offset) for offset in events[first : min(last, first + self.limit)]]
        return Page(self.position, self.floor, rows, last - first > self.limit)


@dataclass(eq=False)
class Session:
    """A client's connection: all that was written to it."""

    client: Client
    join: Join
    frames: list[Frame] = field(default_factory=list)
    gone: bool = False
    looks: int = 0
    kept: Any = None
    """What a wrong gateway remembers."""


class Gateway:
    """``looks``: how often a client may find the store behind its fence before it is refused."""

    wait = True  # an answer of the store that the stream is beyond is read again

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
        self._anew()

    def _anew(self) -> None:
        self.stream: Stream[int] = self.new_stream()
        self.begun = self.subscribed = self._subscribing = self._repairing = self._again = False

    def new_stream(self) -> Stream[int]:
        return Stream(SOURCE, 0, **self._limit)

    # --- a client's way in

    def connect(self, client: Client) -> Session:
        session = Session(client, Join(client.cursor))
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

    def ask(self, then: Callable[[int], object]) -> None:
        """Where the log ends, from now on."""
        send, log = self.world.send, self.world.log
        send("ask", None, lambda: send("ask", None, partial(then, log.end)))

    def admit(self, session: Session) -> None:
        session.join.subscribed()
        self.ask(partial(self.fenced, session))

    def fenced(self, session: Session, end: int) -> None:
        if session.gone:
            return
        if not self.begun:
            self.begun = True
            self.stream.begin(end)
            self.look()  # at what was suspected before
        session.join.fenced(end)
        if session.join.phase is Phase.LIVE:
            self.enter(session, [])
        else:
            self.read(session)

    def pages(self, afters: list[int], then: Callable[[list[Page]], object]) -> None:
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
        if stream.level(page) or not self.wait:
            rows = list(join.read(page))
        if join.phase is not Phase.LIVE:
            session.looks += 1
            if session.looks < self.looks or page.position >= join.fence:
                self.world.send("pause", None, partial(self.read, session))
                return
            join.refuse(Refusal.STORE_LAG)
        self.enter(session, rows, page)

    def enter(self, session: Session, rows: list[Row], page: Page | None = None) -> None:
        """The step into the stream. Cursors of the past are each row's own: a connection may end anywhere."""
        join = session.join
        heard = self.stream.heard_after(join.after)
        session.frames += [Frame("event", row.offset, row.offset) for row in rows]
        cursor = self.cursor(join)
        self.world.entered(session, cursor, [*offsets(rows), *heard], page)
        # Said before anything else has a cursor: whoever is cut off here must know of it.
        session.frames.append(Frame("refused" if join.refusal else "subscribed", -1, cursor))
        session.frames += [Frame("event", offset, cursor) for offset in heard]
        self.live.append(session)

    def cursor(self, join: Join) -> int:
        """Everything after it is told, or will be."""
        return max(join.after, self.stream.confirmed)

    # --- the stream

    def tell(self, frame: Frame) -> None:
        for session in self.live:
            session.frames.append(frame)

    def heard(self, connection: int, pub: str, offset: int) -> None:
        if connection != self.connection:
            return
        self.stream.count(pub, offset)
        if self.stream.hear(offset, offset):
            self.tell(Frame("event", offset, self.stream.confirmed))
        self.look()

    def _suspect(self, stream: Stream[int], end: int) -> None:
        stream.suspect(end)
        self.look()

    def look(self) -> None:
        if self.stream.needs is not None:
            self._repair()

    def check(self) -> None:
        """The periodic look, also when nothing is suspected."""
        if self.checks:
            self._repair()

    def _repair(self) -> None:
        if self.repairs and self.begun and not self._repairing:
            self._repairing = True
            self._compare(self.stream)

    def _compare(self, stream: Stream[int]) -> None:
        if stream is self.stream:
            self.pages([stream.confirmed], partial(self._compared, stream))

    def _compared(self, stream: Stream[int], pages: list[Page]) -> None:
        if stream is not self.stream:
            return
        (page,) = pages
        self.settle(page)
        if page.more or stream.needs is not None:
            self.world.send("pause", None, partial(self._compare, stream))
        else:
            self._repairing = False

    def settle(self, page: Page) -> None:
        """A late event's cursor is its own offset: a connection may end between two of them."""
        stream = self.stream
        if stream.lost(page):
            self.tell(Frame("lost", -1, page.floor - 1))
            self.world.outcome.lost += 1
        before = stream.confirmed
        for row in stream.repair(page):
            self.world.outcome.late += 1
            self.tell(Frame("event", row.offset, self.late_cursor(row.offset)))
        if stream.confirmed > before:
            self.tell(Frame("sync", -1, stream.confirmed))
        self.world.settled(self)

    def late_cursor(self, offset: int) -> int:
        return offset

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
        loses: Callable[[], bool] = lambda: False,
        repeats: Callable[[], bool] = lambda: False,
        repairs: bool = True,
        checks: bool = True,
        acks_all: bool = True,
        limit: int | None = None,
        page: int = 1000,
        looks: int = 1000,
    ) -> None:
        self.send = wires.send
        self.outcome = Outcome()
        self.log = Log(wires, acks_all=acks_all)
        self.redis = Redis(wires, loses)
        self.store = Store(self.log, limit=page)
        self.publishers = [Publisher(name, self.redis, wires, repeats) for name in "abc"]
        self.gateways = [
            gateway(self, limit=limit, looks=looks, repairs=repairs, checks=checks) for _ in range(2)
        ]
        self.clients: list[Client] = []
        self.sessions: dict[Client, tuple[Gateway, Session]] = {}

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
        client.receive(session.frames[: max(0, len(session.frames) - unread)], self.log.events)
        self.outcome.told += len(session.frames)

    def entered(self, session: Session, cursor: int, told: list[int], page: Page | None) -> None:
        """Nobody skips what is not in the log yet; a refusal has a reason, and tells nothing of the past."""
        join, after = session.join, session.client.cursor
        why, wrong = join.refusal, self.outcome.wrong
        self.outcome.entered[why.value if why else "recovered"] += 1
        if cursor >= self.log.end:
            wrong.append(f"{cursor} is told as a cursor, and the log ends at {self.log.end}")
        if why is None:
            return
        if any(offset < join.fence for offset in told):
            wrong.append(f"{why} told something of the past")
        if why is Refusal.EPOCH_CHANGED:
            true = after is not None and after >= join.fence
        elif after is None or page is None:
            true = False
        elif why is Refusal.STORE_LAG:
            true = page.position < join.fence
        elif why is Refusal.RETENTION:
            true = after + 1 < page.floor
        else:
            true = why is Refusal.TOO_FAR_BEHIND and page.more
        if not true:
            wrong.append(f"{why} of a client that knows {after}, with fence {join.fence} and {page}")

    def settled(self, gateway: Gateway) -> None:
        """What a stream keeps is what the store may still lack, and never more than its limit."""
        stream = gateway.stream
        if stream.pending > min(stream.limit, self.log.length - stream.confirmed - 1):
            self.outcome.wrong.append(f"{stream.pending} pending beyond {stream.confirmed}")

    def finish(self) -> Outcome:
        """Everything came to rest: whoever is connected must know all that is owed."""
        outcome, events = self.outcome, self.log.events
        outcome.events = len(events)
        for gateway in self.gateways:
            outcome.overflowed += gateway.stream.overflowed
            if len(gateway.live) != len(gateway.sessions):
                outcome.wrong.append("a client never came in")
            if gateway.repairs and gateway.begun:
                behind = gateway.checks and gateway.stream.confirmed != self.log.length - 1
                if behind or gateway.stream.needs is not None:
                    outcome.wrong.append("a stream never came to rest")
        for client in list(self.sessions):
            self.disconnect(client)
            outcome.gaps += len(client.unknown - client.known) + len(client.missing(events, self.log.length))
        for client in self.clients:
            outcome.duplicates += len(client.duplicates)
            outcome.unheld += len(client.unknown)
        return outcome
