"""The handover: no gap and no duplicate on any schedule, the known wrong ways are caught, and each rule."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase as Stage
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dualstream_lab.gateway.handover import Join, Phase, Stream
from dualstream_lab.gateway.past import Positions, Refusal, later
from tests.gateway.model import (
    SOURCE,
    Act,
    Gateway,
    Page,
    Place,
    Row,
    Said,
    Session,
    Store,
    World,
    events_of,
    id_of,
)
from tests.gateway.oracle import Client, Event, Outcome, total
from tests.gateway.schedules import Schedule

LOSSES: dict[str, dict[str, Any]] = {
    "no loss": {},
    "1 % lost": {"lost": 0.01},
    "50 ms outage": {"outage": True},
}
ANNOUNCED: dict[str, Any] = {"strays": 0.0, "transactions": False}
"""Every event is announced, and in a partition that is looked into without a periodic check."""
TROUBLES: dict[str, dict[str, Any]] = {
    "streams that hold two events": {"limit": 2, "lost": 0.05},
    "pages of five rows": {"page": 5, "lost": 0.05},
    "a store that stalls, impatient clients": {"stall": True, "looks": 6, "lost": 0.05},
    "fast retention and a slow store": {"stall": True, "retention": True, "outage": True},
    "an outage and no position checks": {"outage": True, "checks": False} | ANNOUNCED,
    "streams that hold two events and no position checks": {"limit": 2, "checks": False} | ANNOUNCED,
    "acks=1": {"acks_all": False, "delays": {"replicate": (0.1, 40.0)}},
    "growth that is noticed late": {"grows": True, "delays": {"notice": (1.0, 200.0)}, "lost": 0.02},
    "events that are anywhere": {"strays": 1.0, "lost": 0.02},
    "much noise": {"noise": 1.0, "lost": 0.02},
    "transactions": {"transactions": True, "lost": 0.02},
    "everything": {
        "limit": 3,
        "page": 8,
        "looks": 6,
        "stall": True,
        "retention": True,
        "outage": True,
        "lost": 0.05,
        "acks_all": False,
        "grows": True,
        "strays": 0.3,
        "noise": 0.3,
        "transactions": True,
    },
}


def played(count: int, **options: Any) -> Outcome:
    """The schedules of the first seeds, one after the other; each must be clean."""
    outcomes = []
    for seed in range(count):
        outcome = Schedule(seed, **options).run()
        assert outcome.clean, f"seed {seed}: {outcome}"
        outcomes.append(outcome)
    return total(outcomes)


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
def test_two_thousand_schedules_have_no_gap_and_no_duplicate(losses):
    outcome = played(2000, **losses)
    # The schedules are not idle ones: much is told, clients come and come again, and losses are found.
    assert outcome.told > 100_000
    assert outcome.resumed > 4000
    assert outcome.entered["recovered"] > 6000
    assert set(outcome.entered) <= {"recovered", "retention", "epoch_changed"}
    assert outcome.late > (1000 if losses else 0)
    for trouble in (outcome.grown, outcome.elsewhere, outcome.foreign, outcome.beyond, outcome.aborted):
        assert trouble > 500


@pytest.mark.parametrize("troubles", TROUBLES.values(), ids=TROUBLES)
def test_nor_have_schedules_with_other_troubles(troubles):
    outcome = played(300, **troubles)
    assert outcome.overflowed > 1000 or "limit" not in troubles
    assert outcome.entered["too_far_behind"] > 30 or "page" not in troubles
    assert outcome.entered["store_lag"] > 30 or "looks" not in troubles
    assert outcome.entered["retention"] > 30 or "retention" not in troubles
    assert outcome.lost or "retention" not in troubles


def test_where_redis_loses_nothing_nothing_needs_repair():
    """As long as every event is announced (no transactions), and heard where it is looked for."""
    played(300, repairs=False, retention=False, transactions=False, strays=0.0, grows=False, noise=0.0)


# --- what is known to be wrong


class ReadsThenSubscribes(Gateway):
    """The past first, then the subscription."""

    wait = False

    def connect(self, client: Client) -> Session:
        store = self.world.store
        past = [store.page(client.cursor or {}), store.page(self.stream.confirmed)]
        session = super().connect(client)
        session.kept = past
        return session

    def fenced(self, session: Session, page: Page, ends: dict[int, int]) -> None:
        super().fenced(session, page, {p: place.position for p, place in session.kept[0].places.items()})

    def read(self, session: Session) -> None:
        self.found(session, session.kept)


class AsksForNoFence(Gateway):
    """Whatever the store has when the subscription is confirmed is taken for the whole past."""

    def fenced(self, session: Session, page: Page, ends: dict[int, int]) -> None:
        if session.client.cursor is not None:
            ends = {p: min(end, session.join.after.get(p, -1) + 1) for p, end in ends.items()}
        super().fenced(session, page, ends)


class AsksBeforeTheConfirmation(Gateway):
    """The fence is asked for together with the subscription."""

    def connect(self, client: Client) -> Session:
        session = super().connect(client)
        session.kept = self.world.log.ends
        return session

    def fenced(self, session: Session, page: Page, ends: dict[int, int]) -> None:
        super().fenced(session, page, session.kept)


class Maximum(Stream[tuple[Event, str]]):
    """The greatest offset that was heard is the cursor."""

    def receive(self, partition: int, offset: int, event_id: str, item: tuple[Event, str]) -> bool:
        if offset <= self.confirmed.get(partition, -1):
            return False
        self._confirm({partition: offset})
        return True


class FollowsTheMaximum(Gateway):
    def new_stream(self) -> Stream[tuple[Event, str]]:
        return Maximum(SOURCE)


class JoinsWithoutRepair(Gateway):
    """A client reads the store, and the stream that it joins does not look at what was read."""

    wait = False

    def found(self, session: Session, pages: list[Page]) -> None:
        super().found(session, [pages[0], Page({}, {}, [], {}, more=False)])


class TakesAnOldAnswer(Gateway):
    """The store's answer is used although the stream has been repaired beyond it since."""

    wait = False


class SaysTheRepairedCursorTooEarly(Gateway):
    """The late events of one repair already have the cursor that covers them all."""

    def row_cursor(self, cursor: dict[int, int]) -> dict[int, int]:
        return {**cursor, **self.named(self.stream.confirmed)}


class ConfirmsWhatItTellsLater(Gateway):
    """Of many late events the first are told at once and the others in a while, and all are confirmed."""

    def settle(self, page: Page) -> None:
        known = self.named(self.stream.confirmed)
        late = self.stream.repair(page)
        for at in range(0, len(late), 2):
            frames = self.found_frames(late[at : at + 2], known)
            tell = partial(lambda frames: [self.tell(frame) for frame in frames], frames)
            if at:
                self.world.send("pause", None, tell)
            else:
                tell()
        super().settle(page)


class SaysLastThatNothingIsRecovered(Gateway):
    """Events with new cursors come before the word that those before them do not."""

    def enter(self, session: Session, rows: list[Row], page: Page | None = None) -> None:
        super().enter(session, rows, page)
        if session.join.refusal:
            session.frames = [*session.frames[1:], session.frames[0]]


class SaysTheFenceIsTheCursor(Gateway):
    """Who comes without a past is told the fence, though the stream was repaired beyond it."""

    def cursor(self, join: Join) -> Positions:
        return join.after


class LooksInOnePartition(Gateway):
    """A source is believed to be where today's publishers write it, and nowhere else."""

    def pages(self, afters: list[Positions], then: Any) -> None:
        super().pages(afters, lambda pages: then([self._only_home(page) for page in pages]))

    def take(self, said: Said) -> None:
        if said.partition in self.homes:
            super().take(said)

    def _only_home(self, page: Page) -> Page:
        return page._replace(rows=[row for row in page.rows if row.partition in self.homes])


class NamesPartitionsItHasNotRead(Gateway):
    """An event of the past names all partitions in its cursor, as far as the page goes."""

    def row_cursor(self, cursor: dict[int, int]) -> dict[int, int]:
        return {**self.named(self.stream.confirmed), **cursor}


class Places(Stream[tuple[Event, str]]):
    """What was heard is known by its place alone."""

    def receive(self, partition: int, offset: int, event_id: str, item: tuple[Event, str]) -> bool:
        return super().receive(partition, offset, id_of(partition, offset), item)


class TakesWhatIsOfAnotherLog(Gateway):
    """Whatever is announced is taken for the own log's word: its places hide what is there."""

    def new_stream(self) -> Stream[tuple[Event, str]]:
        return Places(SOURCE)

    def heard(self, connection: int, said: Said) -> None:
        super().heard(connection, said._replace(log="ours"))


class KnowsPlacesOnly(Gateway):
    def new_stream(self) -> Stream[tuple[Event, str]]:
        return Places(SOURCE)


class BelievesRedisBeyondTheEnd(Gateway):
    """A place that was announced says how far the log goes."""

    def heard(self, connection: int, said: Said) -> None:
        if connection == self.connection and said.log == "ours":
            self.stream.suspect(later({said.partition: said.offset + 1}, self.stream.needs))
            self.take(said)


class IsUncommitted(Store):
    """It reads up to the high watermark, and passes over what is not decided there."""

    def end(self, partition: int) -> int:
        return self._log.partitions[partition].end


class KeepsWhatWasAborted(IsUncommitted):
    """And takes it for decided."""

    def rows(self, number: int, after: int) -> list[Row]:
        partition = self._log.partitions[number]
        open_ = [offset for offsets in partition.open.values() for offset in offsets]
        more = [Row(number, o, id_of(number, o), partition.times[o]) for o in (*open_, *partition.aborted)]
        seen = [row for row in more if after < row.offset < self.positions[number]]
        return sorted([*super().rows(number, after), *seen])


class TakesALongPastForAllOfIt(Gateway):
    """What came while a long past was told is not read after it."""

    wait = False

    def send_ahead(self, session: Session, rows: list[Row], page: Page) -> None:
        super().send_ahead(session, rows, page)
        session.kept = page._replace(rows=[])

    def found(self, session: Session, pages: list[Page]) -> None:
        super().found(session, pages if session.kept is None else [session.kept, pages[1]])


class ForgetsHowFarALongPastWent(Gateway):
    """And reads it again."""

    def send_ahead(self, session: Session, rows: list[Row], page: Page) -> None:
        before, first = session.asked, session.kept is None
        super().send_ahead(session, rows, page)
        session.kept = True
        if first:
            session.join.after = before or {}


WRONG: dict[type[Gateway], dict[str, Any]] = {
    ReadsThenSubscribes: {"repairs": False},
    AsksForNoFence: {"repairs": False},
    AsksBeforeTheConfirmation: {"repairs": False},
    FollowsTheMaximum: {},
    JoinsWithoutRepair: {},
    TakesAnOldAnswer: {"outage": True, "delays": {"read": (0.1, 20.0)}},
    SaysTheRepairedCursorTooEarly: {"outage": True},
    ConfirmsWhatItTellsLater: {"outage": True},
    SaysLastThatNothingIsRecovered: {"page": 5},
    SaysTheFenceIsTheCursor: {"outage": True, "delays": {"ask": (0.1, 60.0)}},
    LooksInOnePartition: {"grows": True},
    NamesPartitionsItHasNotRead: {"strays": 0.5},
    TakesWhatIsOfAnotherLog: {"noise": 0.3},
    KnowsPlacesOnly: {"noise": 0.5},
    TakesALongPastForAllOfIt: {},
    ForgetsHowFarALongPastWent: {},
}
CALM: dict[str, Any] = {"strays": 0.0, "grows": False, "noise": 0.0, "transactions": False}
"""Where a gateway without repair has no gap for another reason."""


@pytest.mark.parametrize("gateway", WRONG, ids=lambda gateway: gateway.__name__)
def test_a_wrong_gateway_is_caught(gateway):
    options = WRONG[gateway]
    calm = CALM if options.get("repairs") is False else {}
    assert caught(gateway=gateway, **(calm | options)), "300 schedules, and no gap or duplicate"


def test_who_believes_redis_beyond_the_end_never_comes_to_rest():
    outcomes = [Schedule(seed, gateway=BelievesRedisBeyondTheEnd, noise=0.5).run() for seed in range(20)]
    assert any("a stream never came to rest" in outcome.wrong for outcome in outcomes)


@pytest.mark.parametrize(
    ("store", "found"), [(IsUncommitted, "gaps"), (KeepsWhatWasAborted, "aborted")], ids=["skips", "keeps"]
)
def test_who_reads_what_is_not_committed_is_caught(store, found):
    outcomes = [
        Schedule(seed, store=store, transactions=True, retention=False, checks=False).run()
        for seed in range(100)
    ]
    if found == "gaps":
        assert any(outcome.gaps for outcome in outcomes)
    assert any("was aborted" in wrong for outcome in outcomes for wrong in outcome.wrong) == (
        found == "aborted"
    )


def test_acks_of_the_leader_alone_leave_gaps():
    calm = CALM | {"retention": False}
    assert caught(repairs=False, **calm, **TROUBLES["acks=1"])
    played(300, repairs=False, **calm, delays=TROUBLES["acks=1"]["delays"])  # slow replicas alone do not


def test_a_loss_without_repair_is_a_gap():
    assert caught(repairs=False, lost=0.01, **CALM)
    assert caught(repairs=False, outage=True, **CALM)


@pytest.mark.parametrize("trouble", ["strays", "grows", "transactions"])
def test_what_nobody_announced_where_it_was_looked_for_needs_repair(trouble):
    assert caught(repairs=False, retention=False, **(CALM | {trouble: 1.0 if trouble == "strays" else True}))


def caught(**options: Any) -> bool:
    """Whether one of the first schedules shows a gap or a duplicate."""
    outcomes = (Schedule(seed, **options).run() for seed in range(300))
    return any(outcome.gaps or outcome.duplicates or outcome.unheld for outcome in outcomes)


# --- somebody who means harm


class Held:
    """Wires on which nothing arrives until somebody says so."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, object], deque[Act]] = {}

    def send(self, kind: str, key: object, act: Act) -> None:
        self.lines.setdefault((kind, object() if key is None else key), deque()).append(act)

    def deliver(self, number: int) -> None:
        """The first of one line."""
        line = list(self.lines)[number % len(self.lines)]
        self._pop(line)()

    def lose(self, number: int) -> None:
        """The first of a line of announcements. Confirmations are lost with their connection only."""
        if line := self._announcing(number):
            self._pop(line)

    def repeat(self, number: int) -> None:
        """The same, to arrive twice."""
        if line := self._announcing(number):
            self.lines[line].appendleft(self.lines[line][0])

    def _announcing(self, number: int) -> tuple[str, object] | None:
        lines = [
            line
            for line, acts in self.lines.items()
            if isinstance(acts[0], partial) and acts[0].func.__name__ in {"publish", "heard"}
        ]
        return lines[number % len(lines)] if lines else None

    def deliver_all(self) -> None:
        """What is under way now, but not what comes of it."""
        for line, acts in list(self.lines.items()):
            for _ in range(len(acts)):
                self._pop(line)()

    def _pop(self, line: tuple[str, object]) -> Act:
        act = self.lines[line].popleft()
        if not self.lines[line]:
            del self.lines[line]
        return act


numbers = st.integers(0, 50)
sides = st.integers(0, 1)


class Harm(RuleBasedStateMachine):
    """The same world; what arrives when, and what never does, is chosen to hurt."""

    gateway: type[Gateway] = Gateway

    @initialize(limit=st.sampled_from([1, 3, 100]), page=st.sampled_from([2, 100]), acks_all=st.booleans())
    def begin(self, limit, page, acks_all):
        self.wires = Held()
        self.world = World(
            self.wires, gateway=self.gateway, limit=limit, page=page, looks=3, acks_all=acks_all
        )
        self.away: list[Client] = []

    @rule(
        publishers=st.lists(st.integers(0, 3), min_size=1, max_size=6),
        where=st.one_of(st.none(), st.integers(0, 1)),
    )
    def publish(self, publishers, where):
        for number in publishers:
            self.world.publish(number if number < 3 else None, where)

    @rule()
    def grow(self):
        self.world.grow()

    @rule(partition=st.integers(0, 4), records=st.integers(1, 3))
    def transact(self, partition, records):
        self.world.transact(partition, records)

    @rule(commit=st.booleans())
    def end_transaction(self, commit):
        self.world.end_transaction(commit=commit)

    @rule(
        log=st.sampled_from(["ours", "theirs", None]),
        partition=st.integers(0, 4),
        ahead=st.sampled_from([-2, -1, 0, 1, 3, 10**6]),
        name=st.sampled_from(["", "forged"]),
    )
    def disturb(self, log, partition, ahead, name):
        """Nobody can say our log's word with a true id before the event is there."""
        if name or log != "ours":
            self.world.disturb(log, partition, ahead, name)

    @rule(which=st.lists(numbers, min_size=1, max_size=8))
    def deliver(self, which):
        for number in which:
            if self.wires.lines:
                self.wires.deliver(number)

    @rule()
    def deliver_all(self):
        self.wires.deliver_all()

    @rule(number=numbers)
    def lose(self, number):
        self.wires.lose(number)

    @rule(number=numbers)
    def repeat(self, number):
        self.wires.repeat(number)

    @rule(partition=st.integers(0, 4), records=st.integers(1, 10))
    def move_the_store(self, partition, records):
        store = self.world.store
        if partition in store.positions:
            store.move(partition, store.positions[partition] + records)

    @rule(partition=st.integers(0, 4), records=st.integers(1, 5))
    def prune(self, partition, records):
        store = self.world.store
        if partition in store.positions:
            store.prune(partition, store.floors.get(partition, 0) + records)

    @rule(
        cursor=st.one_of(st.none(), st.dictionaries(st.integers(0, 1), st.integers(-1, 20), max_size=2)),
        side=sides,
    )
    def arrive(self, cursor, side):
        if len(self.world.sessions) < 6:
            self.world.connect(Client(cursor), self.world.gateways[side])

    @precondition(lambda self: self.world.sessions)
    @rule(number=numbers, unread=st.integers(0, 4))
    def drop(self, number, unread):
        client = list(self.world.sessions)[number % len(self.world.sessions)]
        self.world.disconnect(client, unread)
        self.away.append(client)

    @precondition(lambda self: self.away)
    @rule(number=numbers, side=sides)
    def resume(self, number, side):
        client = self.away.pop(number % len(self.away))
        self.world.connect(client, self.world.gateways[side])

    @rule(side=sides)
    def unsubscribe(self, side):
        if not self.world.gateways[side].sessions:
            self.world.gateways[side].unsubscribe()

    @rule(side=sides)
    def cut(self, side):
        self.world.redis.cut(self.world.gateways[side])

    @rule(down=st.booleans())
    def redis(self, down):
        if down:
            self.world.redis.fail()
        else:
            self.world.redis.down = False

    @rule(side=sides)
    def check(self, side):
        self.world.gateways[side].check()

    @invariant()
    def nothing_is_wrong(self):
        assert not self.world.outcome.wrong

    def teardown(self):
        if not hasattr(self, "world"):
            return
        self.world.redis.down = False
        self.world.rest()
        for client in self.away:
            self.world.connect(client, self.world.gateways[0])
        for _ in range(200):
            self.wires.deliver_all()
            for partition in self.world.store.positions:
                self.world.store.move(partition, 10**9)
            if not self.wires.lines:
                break
        for gateway in self.world.gateways:
            gateway.check()
        for _ in range(200):
            self.wires.deliver_all()
        outcome = self.world.finish()
        assert outcome.clean, outcome


TestHarm = Harm.TestCase
TestHarm.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("wrong", [FollowsTheMaximum, JoinsWithoutRepair], ids=lambda wrong: wrong.__name__)
def test_who_means_harm_finds_what_is_wrong(wrong):
    class HarmTo(Harm):
        gateway = wrong

    search = settings(
        max_examples=2000,
        stateful_step_count=60,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Stage.generate],
    )
    with pytest.raises(AssertionError, match=r"(gaps|duplicates)=[1-9]"):
        run_state_machine_as_test(HarmTo, settings=search)


# --- each rule


def stream(confirmed: int = 9, **options: Any) -> Stream[str]:
    """One that has begun: partition 0 of the log ended after ``confirmed``."""
    begun = Stream[str](SOURCE, **options)
    begun.begin({0: confirmed + 1})
    return begun


def told(to: Stream[str], offset: int, partition: int = 0) -> bool:
    return to.receive(partition, offset, id_of(partition, offset), f"e{offset}")


def row(offset: int, partition: int = 0) -> Row:
    return Row(partition, offset, id_of(partition, offset))


def page(position: int, *offsets: int, floor: int = 0, more: bool = False, hole: int = 0) -> Page:
    """Of partition 0 alone."""
    place = Place(position, floor, hole, "retention" if hole else None)
    through = offsets[-1] if more else position - 1
    first = {0: min(offsets, default=floor)}
    return Page({0: place}, first, [row(offset) for offset in offsets], {0: through}, more)


def pages(first: Positions, rows: list[Row], **places: Place) -> Page:
    """Of several: ``p3=Place(…)``."""
    found = {int(name[1:]): place for name, place in places.items()}
    return Page(found, first, rows, {p: place.position - 1 for p, place in found.items()}, more=False)


@pytest.mark.parametrize(
    ("heard", "wanted"),
    [
        ([10, 11, 12], [10, 11, 12]),
        ([10, 10, 10], [10]),  # announced again
        ([12, 10, 11], [12, 10, 11]),  # inverted: each is told, as it comes
        ([9, 3, 0, -1], []),  # the past
        ([500, 10], [500, 10]),  # holes mean nothing
    ],
)
def test_what_is_heard_is_told_once(heard, wanted):
    tells = stream()
    assert [offset for offset in heard if told(tells, offset)] == wanted
    assert tells.pending == len(wanted)
    assert tells.confirmed == {0: 9}, "hearing confirms nothing"
    assert not tells.needs
    assert not tells.doubtful


def test_partitions_have_nothing_to_do_with_each_other():
    tells = stream()
    assert told(tells, 10)
    assert told(tells, 10, partition=3)
    assert told(tells, 0, partition=3), "nothing is confirmed there"
    assert not told(tells, 9)
    assert [
        row.partition
        for row in tells.repair(pages({0: 3, 3: 0}, [row(2, 3)], p0=Place(11, 0), p3=Place(5, 0)))
    ] == [3]
    assert tells.confirmed == {0: 10, 3: 4}
    assert tells.received_after({}) == ["e10"], "of partition 3, beyond what is confirmed there"
    assert not told(tells, 4, partition=3)


def test_another_event_at_its_place_does_not_hide_one():
    tells = stream()
    assert tells.receive(0, 10, "forged", "no")
    assert told(tells, 10)
    other = stream()
    other.receive(0, 10, "forged", "no")
    assert events_of(other.repair(page(11, 10))) == [(0, 10)]


def test_a_stream_is_begun_at_the_end_of_the_log_and_never_goes_back():
    early = Stream[str](SOURCE)
    assert not early.confirmed
    assert all(told(early, offset) for offset in (11, 9, 10))
    early.begin({0: 10, 1: 0})
    assert early.confirmed.get(0) == 9
    assert early.received_after({0: 9}) == ["e11", "e10"]
    early.begin({0: 5})
    assert early.confirmed.get(0) == 9
    early.begin({0: 0})
    assert (early.confirmed.get(0), early.pending) == (9, 2)


def test_repair_tells_what_was_not_heard_and_confirms_what_was_looked_at():
    repaired = stream()
    for offset in (14, 11, 20):
        told(repaired, offset)
    assert repaired.repair(page(17, 10, 11, 14, 16)) == [row(10), row(16)]
    assert repaired.confirmed == {0: 16}
    assert repaired.received_after({}) == ["e20"], "what the store has is kept no longer"
    assert not told(repaired, 10)
    assert not told(repaired, 14)
    assert told(repaired, 17)
    assert repaired.repair(page(17)) == []
    assert repaired.confirmed == {0: 16}


def test_of_many_that_were_not_heard_the_first_are_told_and_no_more_is_confirmed():
    repaired = stream()
    told(repaired, 13)
    rows = [row(10), row(0, 3), row(11), row(13), row(14), row(4, 3)]
    look = pages({0: 3, 3: 0}, rows, p0=Place(17, 0), p3=Place(5, 0))
    missing = repaired.missing(look.rows)
    assert events_of(missing) == [(0, 10), (3, 0), (0, 11), (0, 14), (3, 4)]
    assert repaired.repair(look, missing[:2], left=missing[2:]) == missing[:2]
    assert repaired.confirmed == {0: 10, 3: 3}
    assert not repaired.level(look)
    assert told(repaired, 14), "between two pieces"
    assert events_of(repaired.repair(look, missing[2:4], left=missing[4:])) == [(0, 11)]
    assert repaired.confirmed == {0: 16, 3: 3}
    assert repaired.repair(look, missing[4:]) == missing[4:]
    assert repaired.level(look)
    assert repaired.pending == 0


def test_streams_share_what_one_look_confirmed():
    look = page(400)
    one, two = stream(), stream(confirmed=20)
    one.repair(look)
    two.repair(look)
    assert one.confirmed is two.confirmed is look.through


def test_the_position_confirms_also_where_the_source_has_no_rows():
    idle = stream()
    assert idle.repair(page(400)) == []
    assert idle.confirmed == {0: 399}


def test_a_page_with_more_confirms_its_rows_only():
    behind = stream()
    told(behind, 13)
    behind.suspect({0: 20})
    assert events_of(behind.repair(page(40, 10, 12, more=True))) == [(0, 10), (0, 12)]
    assert (behind.confirmed, behind.needs, behind.pending) == ({0: 12}, {0: 20}, 1)
    assert events_of(behind.repair(page(40, 13, 25))) == [(0, 25)]
    assert (behind.confirmed, behind.needs, behind.pending) == ({0: 39}, {}, 0)


@pytest.mark.parametrize("position", [0, 5, 10])
def test_a_store_that_is_behind_changes_nothing(position):
    ahead = stream()
    told(ahead, 12)
    ahead.suspect({0: 13})
    assert ahead.repair(page(position, *range(position))) == []
    assert (ahead.confirmed, ahead.needs, ahead.pending) == ({0: 9}, {0: 13}, 1)


def test_a_store_that_is_behind_in_one_partition_confirms_the_others():
    ahead = stream()
    ahead.begin({3: 50})
    ahead.repair(pages({}, [], p0=Place(20, 0), p3=Place(7, 0)))
    assert ahead.confirmed == {0: 19, 3: 49}


@pytest.mark.parametrize(
    ("position", "left"), [(12, {0: 13}), (13, {}), (14, {})], ids=["below", "just there", "beyond"]
)
def test_a_suspicion_ends_where_the_store_has_all_below_it(position, left):
    suspected = stream()
    suspected.suspect({0: 13})
    suspected.suspect({0: 11})  # the farther one counts
    suspected.repair(page(position))
    assert suspected.needs == left


def test_a_suspicion_is_of_each_partition():
    suspected = stream()
    suspected.suspect({0: 13, 3: 5})
    suspected.repair(pages({}, [], p0=Place(13, 0)))
    assert suspected.needs == {3: 5}
    suspected.repair(pages({}, [], p0=Place(13, 0), p3=Place(5, 0)))
    assert not suspected.needs


def test_a_suspicion_of_what_is_confirmed_ends_with_the_next_look():
    done = stream()
    done.suspect({0: 5})
    assert done.needs == {0: 5}
    done.repair(page(10))
    assert not done.needs


@pytest.mark.parametrize(
    ("pubs", "missing"),
    [
        (["a:1", "a:2", "a:3"], False),
        (["a:57", "a:58"], False),  # it published before this stream's time
        (["a:1", "a:3"], True),
        (["a:3", "a:3", "a:4"], False),  # twice on the wire
        (["a:5", "a:2", "a:6"], False),  # an old one says nothing
        (["a:5", "a:2", "a:7"], True),
        (["a:4", "b:9", "a:5", "b:10"], False),  # each publisher has its own
        (["a:4", "b:9", "a:6"], True),
        (["a:4", "c:1", "c:2"], False),  # a new nonce begins anew
        (["re:po:4", "re:po:6"], True),
        (["a:1", "", "a", "a:", "a:x", "a:-3", "a:1.5", "a:" + "9" * 5000], False),  # no number
        (["a:1", "a:" + "9" * 5000, "a:2", "a:4"], True),
    ],
)
def test_a_hole_in_a_publishers_numbers_is_doubtful(pubs, missing):
    counting = stream()
    for pub in pubs:
        assert not counting.doubtful
        counting.count(pub)
    assert counting.doubtful == missing
    assert not counting.needs, "how far the log goes only Kafka says"


def test_the_numbers_of_64_publishers_are_known():
    counting = stream()

    def hole(pub: str) -> bool:
        counting.doubtful = False
        counting.count(pub)
        return counting.doubtful

    for number in range(64):
        counting.count(f"n{number}:1")
    assert hole("n0:3")
    assert hole("n63:3")
    for number in range(1000):
        counting.count(f"new{number}:1")
    assert not hole("n0:9"), "forgotten"
    assert hole("new999:3")


def test_a_full_stream_leaves_the_rest_to_repair():
    full = stream(limit=2)
    assert [told(full, offset) for offset in (10, 13, 11, 12, 10)] == [True, True, False, False, False]
    assert (full.pending, full.overflowed, full.doubtful) == (2, 2, True)
    assert not full.needs
    assert events_of(full.repair(page(13, 10, 11, 12))) == [(0, 11), (0, 12)]
    assert full.pending == 1
    assert told(full, 14)


@pytest.mark.parametrize(
    ("floor", "lost"), [(0, None), (10, None), (11, Refusal.RETENTION), (50, Refusal.RETENTION)]
)
def test_what_was_removed_before_it_was_compared_is_lost(floor, lost):
    assert stream().lost(page(60, floor=floor), [0]) is lost


@pytest.mark.parametrize(
    ("first", "lost"),
    [({}, None), ({3: 60}, None), ({3: 20}, Refusal.RETENTION)],
    ids=["it was never there", "it came later", "it was there"],
)
def test_what_others_lost_in_their_partitions_is_not_missed(first, lost):
    look = pages(first, [], p0=Place(60, 0), p3=Place(90, 50))
    assert stream().lost(look, [0]) is lost
    assert stream().lost(look, [0, 3]) is Refusal.RETENTION, "where it is written, it may have been there"


def test_what_compaction_took_is_said():
    hole = Place(90, 50, 50, "compaction")
    assert stream().lost(pages({3: 20}, [], p3=hole), [0]) is Refusal.COMPACTION
    knows = stream()
    knows.begin({3: 60})
    assert knows.lost(pages({3: 20}, [], p3=hole), [0]) is None


@pytest.mark.parametrize(("position", "level"), [(9, False), (10, True), (11, False)])
def test_a_stream_is_level_with_the_page_it_was_repaired_with(position, level):
    assert stream().level(page(position)) == level


def test_it_is_level_in_all_partitions_or_not_at_all():
    tells = stream()
    assert tells.level(pages({}, [], p0=Place(10, 0), p3=Place(0, 0)))
    assert not tells.level(pages({}, [], p0=Place(10, 0), p3=Place(1, 0)))
    tells.begin({3: 1})
    assert not tells.level(page(10)), "the store does not know of what the stream has seen"
    assert tells.level(pages({}, [], p0=Place(10, 0), p3=Place(1, 0)))


def reading(after: Positions | None, ends: Positions) -> Join:
    """A client on its way in that was told where the source's partitions end."""
    join = Join(after)
    assert join.phase is Phase.FENCING
    join.fenced(ends)
    assert join.fence == ends
    return join


def test_a_client_gets_its_past_and_is_live():
    join = reading({0: 4}, {0: 10})
    assert join.phase is Phase.READING
    assert join.read(page(9, 5, 8), [0]) == (), "the store is below the fence"
    assert (join.phase, join.after) == (Phase.READING, {0: 4})
    assert events_of(join.read(page(12, 5, 8, 11), [0])) == [(0, 5), (0, 8), (0, 11)]
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, {0: 11}, None)


def test_it_waits_for_the_store_in_each_of_the_sources_partitions_and_in_no_other():
    join = reading({0: 4}, {0: 10, 7: 3})
    behind = Place(0, 0)
    assert join.read(pages({}, [], p0=Place(10, 0), p7=Place(2, 0)), [0]) == ()
    assert join.read(pages({}, [], p0=Place(10, 0)), [0]) == (), "it has not noticed partition 7"
    assert join.phase is Phase.READING
    join.read(pages({}, [row(5)], p0=Place(10, 0), p7=Place(3, 0), p5=behind), [0])
    assert (join.phase, join.after) == (Phase.LIVE, {0: 9, 7: 2, 5: -1})


def test_of_a_partition_that_a_cursor_does_not_name_nothing_is_known():
    join = reading({0: 4}, {0: 10})
    found = [row(5), row(2, 3)]
    assert list(join.read(pages({0: 1, 3: 2}, found, p0=Place(10, 0), p3=Place(8, 0)), [0])) == found
    assert join.known == {0: 4}
    refused = reading({0: 4}, {0: 10})
    refused.read(pages({0: 1, 3: 2}, found, p0=Place(10, 0), p3=Place(8, 3)), [0])
    assert refused.refusal is Refusal.RETENTION, "what it had there was removed"
    others = reading({0: 4}, {0: 10})
    others.read(pages({0: 1, 3: 3}, [], p0=Place(10, 0), p3=Place(8, 3)), [0])
    assert others.refusal is None, "what was removed was not its"


@pytest.mark.parametrize("end", [0, 10])
def test_a_client_that_wants_only_new_events_waits_for_the_fence_alone(end):
    join = reading(None, {0: end})
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, {0: end - 1}, None)


def test_a_client_that_wants_only_new_events_is_told_what_was_heard_at_its_fence_and_later():
    tells = stream(confirmed=9)
    assert all(told(tells, offset) for offset in (13, 10, 12, 11))
    assert tells.received_after(reading(None, {0: 12}).after) == ["e13", "e12"]


def test_a_client_that_wants_all_of_an_empty_log_reads_it():
    join = reading({}, {0: 0})
    assert join.read(page(0), [0]) == []
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, {0: -1}, None)


@pytest.mark.parametrize(
    ("look", "refusal"),
    [
        (page(15, 8, 11, floor=8), None),  # what was removed is not missed
        (page(15, 8, 11, floor=8, hole=8), Refusal.RETENTION),  # what was never there is
        (pages({0: 8}, [row(8), row(11)], p0=Place(15, 8), p3=Place(9, 5, 5, "compaction")), None),
        (
            pages({0: 8, 3: 7}, [row(8), row(11)], p0=Place(15, 8), p3=Place(9, 5, 5, "compaction")),
            Refusal.COMPACTION,
        ),
    ],
    ids=["pruned", "a hole", "a hole elsewhere", "a hole where it was, too"],
)
def test_the_earliest_is_all_that_is_kept_and_a_hole_before_it_is_said(look, refusal):
    join = reading({}, {0: 10})
    assert events_of(join.read(look, [0])) == [(0, 8), (0, 11)]
    assert join.refusal is refusal
    assert join.known[0] == 7


def test_a_client_that_knows_all_is_told_nothing():
    join = reading({0: 9}, {0: 10})
    assert join.phase is Phase.READING
    assert join.read(page(10), [0]) == []
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, {0: 9}, None)


@pytest.mark.parametrize("after", [10, 11, 10**12])
def test_a_cursor_beyond_the_log_is_of_another_one(after):
    for known in ({0: after}, {0: 3, 1: after}):
        join = reading(known, {0: 10, 1: 10})
        assert (join.phase, join.after, join.refusal) == (Phase.LIVE, {0: 9, 1: 9}, Refusal.EPOCH_CHANGED)


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (page(15, 8, 11, floor=5), None),
        (page(15, 8, 11, floor=6), Refusal.RETENTION),
        (page(15, floor=15), Refusal.RETENTION),
        (page(15, 5, 6, more=True), Refusal.TOO_FAR_BEHIND),
        (page(15, 6, 7, floor=6, more=True), Refusal.RETENTION),
        (pages({}, [], p0=Place(15, 9, 7, "compaction")), Refusal.COMPACTION),
        (pages({}, [], p0=Place(15, 9, 5, "compaction")), Refusal.RETENTION),
    ],
)
def test_the_past_is_told_whole_or_not_at_all(answer, refusal):
    join = reading({0: 4}, {0: 10})
    rows = join.read(answer, [0])
    assert (events_of(rows), join.refusal) == ([] if refusal else [(0, 8), (0, 11)], refusal)
    # The stream is repaired up to the page's position, and holds nothing of before: no place below is true.
    assert (join.phase, join.after) == (Phase.LIVE, {0: 14})


@pytest.mark.parametrize("why", Refusal)
def test_whoever_is_refused_is_live_from_the_fence(why):
    join = reading({0: 4}, {0: 10})
    join.refuse(why)
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, {0: 9}, why)


def unfenced(after: Positions | None, positions: Positions) -> Join:
    """A client on its way in while Kafka is away."""
    join = Join(after)
    join.unfenced(positions)
    return join


def test_without_kafka_what_the_store_has_is_told_and_that_there_may_be_more():
    join = unfenced({0: 4}, {0: 10})
    assert events_of(join.read(page(12, 5, 11), [0])) == [(0, 5), (0, 11)]
    assert (join.refusal, join.after) == (Refusal.LOG_UNAVAILABLE, {0: 11})
    gone = unfenced({0: 4}, {0: 10})
    assert gone.read(page(12, 8, floor=7), [0]) == ()
    assert (gone.refusal, gone.after) == (Refusal.RETENTION, {0: 11})


def test_without_kafka_who_is_ahead_of_the_store_keeps_its_place():
    join = unfenced({0: 30, 3: 9}, {0: 10, 3: 10})
    assert (join.phase, join.refusal) == (Phase.LIVE, Refusal.LOG_UNAVAILABLE)
    assert join.after == {0: 30, 3: 9}
    half = unfenced({0: 30, 3: 4}, {0: 10, 3: 10})
    assert half.phase is Phase.READING
    half.read(pages({0: 1, 3: 1}, [row(5, 3)], p0=Place(10, 0), p3=Place(10, 0)), [0])
    assert half.after == {0: 30, 3: 9}


def test_without_kafka_a_cursor_of_another_log_says_nothing_of_ours():
    join = unfenced({0: 30}, {0: 50})
    join.refuse(Refusal.EPOCH_CHANGED)
    assert (join.phase, join.after) == (Phase.LIVE, {})


def test_of_a_log_that_was_made_anew_all_is_new():
    join = reading({0: 4}, {0: 10})
    join.renew()
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, {}, Refusal.EPOCH_CHANGED)


def test_a_join_and_its_stream_tell_each_event_once():
    tells = stream(confirmed=9)
    assert [told(tells, offset) for offset in (15, 10, 13)] == [True] * 3
    join = reading({0: 4}, {0: 12})
    mine, theirs = page(14, 5, 10, 11, 13), page(14, 10, 11, 13)
    assert events_of(tells.repair(theirs)) == [(0, 11)], "the others are told what they missed"
    assert tells.level(mine)
    assert events_of(join.read(mine, [0])) == [(0, 5), (0, 10), (0, 11), (0, 13)]
    assert tells.received_after(join.after) == ["e15"]
    assert not any(told(tells, offset) for offset in (5, 10, 11, 13, 15))
    assert told(tells, 14)


offsets = st.dictionaries(st.integers(0, 5), st.integers(-1, 30), max_size=6)


@given(offsets, offsets)
def test_the_later_of_two_places_is_the_higher_offset_of_each_partition(one, other):
    found = later(one, other)
    for partition in {*one, *other}:
        highest = max(one.get(partition, -1), other.get(partition, -1))
        assert found.get(partition, -1) == highest
    assert later(found, one) is later(found, other) is found
