"""The handover: no gap and no duplicate on any schedule, the known wrong ways are caught, and each rule."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

import pytest
from hypothesis import Phase as Stage
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dualstream_lab.gateway.handover import Join, Phase, Refusal, Stream
from tests.gateway.model import SOURCE, Act, Gateway, Page, Row, Session, World, offsets
from tests.gateway.oracle import Client, Outcome, total
from tests.gateway.schedules import Schedule

LOSSES: dict[str, dict[str, Any]] = {
    "no loss": {},
    "1 % lost": {"lost": 0.01},
    "50 ms outage": {"outage": True},
}
TROUBLES: dict[str, dict[str, Any]] = {
    "streams that hold two events": {"limit": 2, "lost": 0.05},
    "pages of five rows": {"page": 5, "lost": 0.05},
    "a store that stalls, impatient clients": {"stall": True, "looks": 6, "lost": 0.05},
    "fast retention and a slow store": {"stall": True, "retention": True, "outage": True},
    "an outage and no position checks": {"outage": True, "checks": False},
    "streams that hold two events and no position checks": {"limit": 2, "checks": False},
    "acks=1": {"acks_all": False, "delays": {"replicate": (0.1, 40.0)}},
    "everything": {
        "limit": 3,
        "page": 8,
        "looks": 6,
        "stall": True,
        "retention": True,
        "outage": True,
        "lost": 0.05,
        "acks_all": False,
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


@pytest.mark.parametrize("troubles", TROUBLES.values(), ids=TROUBLES)
def test_nor_have_schedules_with_other_troubles(troubles):
    outcome = played(300, **troubles)
    assert outcome.overflowed > 1000 or "limit" not in troubles
    assert outcome.entered["too_far_behind"] > 30 or "page" not in troubles
    assert outcome.entered["store_lag"] > 30 or "looks" not in troubles
    assert outcome.entered["retention"] > 30 or "retention" not in troubles
    assert outcome.lost or "retention" not in troubles


def test_where_redis_loses_nothing_nothing_needs_repair():
    played(300, repairs=False, retention=False)


# --- what is known to be wrong


class ReadsThenSubscribes(Gateway):
    """The past first, then the subscription."""

    wait = False

    def connect(self, client: Client) -> Session:
        store = self.world.store
        past = [store.page(-1 if client.cursor is None else client.cursor), store.page(self.stream.confirmed)]
        session = super().connect(client)
        session.kept = past
        return session

    def fenced(self, session: Session, end: int) -> None:
        super().fenced(session, session.kept[0].position)

    def read(self, session: Session) -> None:
        self.found(session, session.kept)


class AsksForNoFence(Gateway):
    """Whatever the store has when the subscription is confirmed is taken for the whole past."""

    def fenced(self, session: Session, end: int) -> None:
        only_new = session.client.cursor is None
        super().fenced(session, end if only_new else min(end, session.join.after + 1))


class AsksBeforeTheConfirmation(Gateway):
    """The fence is asked for together with the subscription."""

    def connect(self, client: Client) -> Session:
        session = super().connect(client)
        session.kept = self.world.log.end
        return session

    def fenced(self, session: Session, end: int) -> None:
        super().fenced(session, session.kept)


class Maximum(Stream[int]):
    """The greatest offset that was heard is the cursor."""

    def hear(self, offset: int, item: int) -> bool:
        if offset <= self.confirmed:
            return False
        self._confirm(offset)
        return True


class FollowsTheMaximum(Gateway):
    def new_stream(self) -> Stream[int]:
        return Maximum(SOURCE, 0)


class JoinsWithoutRepair(Gateway):
    """A client reads the store, and the stream that it joins does not look at what was read."""

    wait = False

    def found(self, session: Session, pages: list[Page]) -> None:
        super().found(session, [pages[0], Page(0, 0, [], more=False)])


class TakesAnOldAnswer(Gateway):
    """The store's answer is used although the stream has been repaired beyond it since."""

    wait = False


class SaysTheRepairedCursorTooEarly(Gateway):
    """The late events of one repair already have the cursor that covers them all."""

    def late_cursor(self, offset: int) -> int:
        return self.stream.confirmed


class SaysLastThatNothingIsRecovered(Gateway):
    """Events with new cursors come before the word that those before them do not."""

    def enter(self, session: Session, rows: list[Row], page: Page | None = None) -> None:
        super().enter(session, rows, page)
        if session.join.refusal:
            session.frames = [*session.frames[1:], session.frames[0]]


class SaysTheFenceIsTheCursor(Gateway):
    """Who comes without a past is told the fence, though the stream was repaired beyond it."""

    def cursor(self, join: Join) -> int:
        return join.after


WRONG: dict[type[Gateway], dict[str, Any]] = {
    ReadsThenSubscribes: {"repairs": False},
    AsksForNoFence: {"repairs": False},
    AsksBeforeTheConfirmation: {"repairs": False},
    FollowsTheMaximum: {},
    JoinsWithoutRepair: {},
    TakesAnOldAnswer: {"outage": True, "delays": {"read": (0.1, 20.0)}},
    SaysTheRepairedCursorTooEarly: {"outage": True},
    SaysLastThatNothingIsRecovered: {"page": 5},
    SaysTheFenceIsTheCursor: {"outage": True, "delays": {"ask": (0.1, 60.0)}},
}


@pytest.mark.parametrize("gateway", WRONG, ids=lambda gateway: gateway.__name__)
def test_a_wrong_gateway_is_caught(gateway):
    assert caught(gateway=gateway, **WRONG[gateway]), "300 schedules, and no gap or duplicate"


def test_acks_of_the_leader_alone_leave_gaps():
    assert caught(repairs=False, **TROUBLES["acks=1"])
    played(300, repairs=False, delays=TROUBLES["acks=1"]["delays"])  # slow replicas alone do not


def test_a_loss_without_repair_is_a_gap():
    assert caught(repairs=False, lost=0.01)
    assert caught(repairs=False, outage=True)


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

    @rule(publishers=st.lists(st.integers(0, 3), min_size=1, max_size=6))
    def publish(self, publishers):
        for number in publishers:
            self.world.log.append(self.world.publishers[number] if number < 3 else None)

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

    @rule(records=st.integers(1, 10))
    def move_the_store(self, records):
        store = self.world.store
        store.position = min(self.world.log.end, store.position + records)

    @rule(records=st.integers(1, 5))
    def prune(self, records):
        store = self.world.store
        store.floor = min(store.position, store.floor + records)

    @rule(cursor=st.one_of(st.none(), st.integers(-1, 20)), side=sides)
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
        for client in self.away:
            self.world.connect(client, self.world.gateways[0])
        for _ in range(200):
            self.wires.deliver_all()
            self.world.store.position = self.world.log.end
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
    """One that has begun: the log ended after ``confirmed``."""
    begun = Stream[str](SOURCE, 0, **options)
    begun.begin(confirmed + 1)
    return begun


def page(position: int, *offsets: int, floor: int = 0, more: bool = False) -> Page:
    return Page(position, floor, [Row(offset) for offset in offsets], more)


@pytest.mark.parametrize(
    ("heard", "told"),
    [
        ([10, 11, 12], [10, 11, 12]),
        ([10, 10, 10], [10]),  # announced again
        ([12, 10, 11], [12, 10, 11]),  # inverted: each is told, as it comes
        ([9, 3, 0, -1], []),  # the past
        ([500, 10], [500, 10]),  # holes mean nothing
    ],
)
def test_what_is_heard_is_told_once(heard, told):
    tells = stream()
    assert [offset for offset in heard if tells.hear(offset, "it")] == told
    assert tells.pending == len(told)
    assert tells.confirmed == 9, "hearing confirms nothing"
    assert tells.needs is None


def test_a_stream_is_begun_at_the_end_of_the_log_and_never_goes_back():
    early = Stream[str](SOURCE, 0)
    assert early.confirmed == -1
    assert all(early.hear(offset, f"e{offset}") for offset in (11, 9, 10))
    early.begin(10)
    assert early.confirmed == 9
    assert early.heard_after(9) == ["e11", "e10"]
    early.begin(5)
    assert early.confirmed == 9
    early.begin(0)
    assert (early.confirmed, early.pending) == (9, 2)


def test_repair_tells_what_was_not_heard_and_confirms_what_was_looked_at():
    repaired = stream()
    for offset in (14, 11, 20):
        repaired.hear(offset, f"e{offset}")
    assert repaired.repair(page(17, 10, 11, 14, 16)) == [Row(10), Row(16)]
    assert repaired.confirmed == 16
    assert repaired.heard_after(-1) == ["e20"], "what the store has is kept no longer"
    assert not repaired.hear(10, "again")
    assert not repaired.hear(14, "again")
    assert repaired.hear(17, "new")
    assert repaired.repair(page(17)) == []
    assert repaired.confirmed == 16


def test_the_position_confirms_also_where_the_source_has_no_rows():
    idle = stream()
    assert idle.repair(page(400)) == []
    assert idle.confirmed == 399


def test_a_page_with_more_confirms_its_rows_only():
    behind = stream()
    behind.hear(13, "e13")
    behind.suspect(20)
    assert offsets(behind.repair(page(40, 10, 12, more=True))) == [10, 12]
    assert (behind.confirmed, behind.needs, behind.pending) == (12, 20, 1)
    assert offsets(behind.repair(page(40, 13, 25))) == [25]
    assert (behind.confirmed, behind.needs, behind.pending) == (39, None, 0)


@pytest.mark.parametrize("position", [0, 5, 10])
def test_a_store_that_is_behind_changes_nothing(position):
    ahead = stream()
    ahead.hear(12, "e12")
    ahead.suspect(13)
    assert ahead.repair(page(position, *range(position))) == []
    assert (ahead.confirmed, ahead.needs, ahead.pending) == (9, 13, 1)


@pytest.mark.parametrize(
    ("position", "left"), [(12, 13), (13, None), (14, None)], ids=["below", "just there", "beyond"]
)
def test_a_suspicion_ends_where_the_store_has_all_below_it(position, left):
    suspected = stream()
    suspected.suspect(13)
    suspected.suspect(11)  # the farther one counts
    suspected.repair(page(position))
    assert suspected.needs == left


def test_a_suspicion_of_what_is_confirmed_ends_with_the_next_look():
    done = stream()
    done.suspect(5)
    assert done.needs == 5
    done.repair(page(10))
    assert done.needs is None


@pytest.mark.parametrize(
    ("pubs", "missing"),
    [
        (["a:1", "a:2", "a:3"], []),
        (["a:57", "a:58"], []),  # it published before this stream's time
        (["a:1", "a:3"], ["a:3"]),
        (["a:1", "a:3", "a:4"], ["a:3"]),
        (["a:3", "a:3", "a:4"], []),  # twice on the wire
        (["a:5", "a:2", "a:6"], []),  # an old one says nothing
        (["a:5", "a:2", "a:7"], ["a:7"]),
        (["a:4", "b:9", "a:5", "b:10"], []),  # each publisher has its own
        (["a:4", "b:9", "a:6", "b:10"], ["a:6"]),
        (["a:4", "c:1", "c:2"], []),  # a new nonce begins anew
        (["re:po:4", "re:po:6"], ["re:po:6"]),
        (["a:1", "", "a", "a:", "a:x", "a:-3", "a:1.5", "a:" + "9" * 5000], []),  # no number
        (["a:1", "a:" + "9" * 5000, "a:2", "a:4"], ["a:4"]),
    ],
)
def test_a_hole_in_a_publishers_numbers_is_suspicious(pubs, missing):
    counting = stream()
    assert [pub for offset, pub in enumerate(pubs, 10) if counting.count(pub, offset)] == missing
    assert counting.needs == (11 + pubs.index(missing[-1]) if missing else None)


def test_the_numbers_of_64_publishers_are_known():
    counting = stream()
    for number in range(64):
        counting.count(f"n{number}:1", 10)
    assert counting.count("n0:3", 11)
    assert counting.count("n63:3", 12)
    for number in range(1000):
        counting.count(f"new{number}:1", 13)
    assert not counting.count("n0:9", 14), "forgotten"
    assert counting.count("new999:3", 15)


def test_a_full_stream_leaves_the_rest_to_repair():
    full = stream(limit=2)
    assert [full.hear(offset, "it") for offset in (10, 13, 11, 12, 10)] == [True, True, False, False, False]
    assert (full.pending, full.overflowed, full.needs) == (2, 2, 13)
    assert offsets(full.repair(page(13, 10, 11, 12))) == [11, 12]
    assert (full.pending, full.needs) == (1, None)
    assert full.hear(14, "it")


@pytest.mark.parametrize(("floor", "lost"), [(0, False), (10, False), (11, True), (50, True)])
def test_what_was_removed_before_it_was_compared_is_lost(floor, lost):
    assert stream().lost(page(60, floor=floor)) == lost


@pytest.mark.parametrize(("position", "level"), [(9, False), (10, True), (11, False)])
def test_a_stream_is_level_with_the_page_it_was_repaired_with(position, level):
    assert stream().level(page(position)) == level


def reading(after: int | None, end: int) -> Join:
    """A client on its way in that was told where the log ends."""
    join = Join(after)
    assert join.phase is Phase.SUBSCRIBING
    join.subscribed()
    assert join.phase is Phase.FENCING
    join.fenced(end)
    assert join.fence == end
    return join


def test_a_client_gets_its_past_and_is_live():
    join = reading(4, 10)
    assert join.phase is Phase.READING
    assert join.read(page(9, 5, 8)) == (), "the store is below the fence"
    assert (join.phase, join.after) == (Phase.READING, 4)
    assert offsets(join.read(page(12, 5, 8, 11))) == [5, 8, 11]
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, 11, None)


@pytest.mark.parametrize("end", [0, 10])
def test_a_client_that_wants_only_new_events_waits_for_the_fence_alone(end):
    join = reading(None, end)
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, end - 1, None)


def test_a_client_that_wants_only_new_events_is_told_what_was_heard_at_its_fence_and_later():
    tells = stream(confirmed=9)
    assert all(tells.hear(offset, f"e{offset}") for offset in (13, 10, 12, 11))
    assert tells.heard_after(reading(None, 12).after) == ["e13", "e12"]


def test_a_client_that_wants_all_of_an_empty_log_reads_it():
    join = reading(-1, 0)
    assert join.read(page(0)) == []
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, -1, None)


def test_a_client_that_knows_all_is_told_nothing():
    join = reading(9, 10)
    assert join.phase is Phase.READING
    assert join.read(page(10)) == []
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, 9, None)


@pytest.mark.parametrize("after", [10, 11, 10**12])
def test_a_cursor_beyond_the_log_is_of_another_one(after):
    join = reading(after, 10)
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, 9, Refusal.EPOCH_CHANGED)


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        (page(15, 8, 11, floor=5), None),
        (page(15, 8, 11, floor=6), Refusal.RETENTION),
        (page(15, floor=15), Refusal.RETENTION),
        (page(15, 5, 6, more=True), Refusal.TOO_FAR_BEHIND),
        (page(15, 6, 7, floor=6, more=True), Refusal.RETENTION),
    ],
)
def test_the_past_is_told_whole_or_not_at_all(answer, refusal):
    join = reading(4, 10)
    rows = join.read(answer)
    assert (offsets(rows), join.refusal) == ([] if refusal else [8, 11], refusal)
    # The stream is repaired up to the page's position, and holds nothing of before: no place below is true.
    assert (join.phase, join.after) == (Phase.LIVE, 14)


@pytest.mark.parametrize("why", Refusal)
def test_whoever_is_refused_is_live_from_the_fence(why):
    join = reading(4, 10)
    join.refuse(why)
    assert (join.phase, join.after, join.refusal) == (Phase.LIVE, 9, why)


def test_a_join_and_its_stream_tell_each_event_once():
    tells = stream(confirmed=9)
    assert [tells.hear(offset, f"e{offset}") for offset in (15, 10, 13)] == [True] * 3
    join = reading(4, 12)
    mine, theirs = page(14, 5, 10, 11, 13), page(14, 10, 11, 13)
    assert offsets(tells.repair(theirs)) == [11], "the others are told what they missed"
    assert tells.level(mine)
    assert offsets(join.read(mine)) == [5, 10, 11, 13]
    assert tells.heard_after(join.after) == ["e15"]
    assert not any(tells.hear(offset, "again") for offset in (5, 10, 11, 13, 15))
    assert tells.hear(14, "e14")
