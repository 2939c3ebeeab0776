"""What Kafka's answers mean, and who of a refused batch is rejected."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError
from aiokafka.producer.message_accumulator import MessageBatch
from aiokafka.protocol.produce import ProduceResponse_v7, ProduceResponse_v8
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab import Settings
from dualstream_lab.errors import OutcomeUnknown
from dualstream_lab.publisher.call import Generation, PartitionSlice, PublishCall, State
from dualstream_lab.publisher.kafka import BatchSender, _Handler
from dualstream_lab.publisher.partition_queue import PartitionQueue
from dualstream_lab.publisher.record_batch import BatchLimit, RecordBatch
from dualstream_lab.publisher.refusals import ANSWERS, BatchRefused, Blame, Meaning, answer_of, triage
from dualstream_lab.publisher.routes import Routes

ROUTE = Routes(Settings.load(), partitions=6).route("repo", "a")


def of(meaning: Meaning) -> set[int]:
    return {code for code, answer in ANSWERS.items() if answer.meaning is meaning}


def test_no_code_of_the_protocol_is_missing():
    assert set(kafka_errors.kafka_errors) <= set(ANSWERS), "those that aiokafka knows"
    assert set(ANSWERS) == set(range(-1, 137)), "those of Kafka 4.4"
    assert all(answer.code == code and answer.why for code, answer in ANSWERS.items())


def test_what_is_definite_is_what_a_broker_checks_before_it_appends():
    assert of(Meaning.DEFINITE) == {2, 10, 17, 18, 21, 29, 31, 32, 35, 42, 43, 44, 53, 76, 87}
    assert of(Meaning.DURABLE) == {0, 46}
    again = of(Meaning.RETRY) | of(Meaning.RETRY_IN_DOUBT)
    known = {code for code, error in kafka_errors.kafka_errors.items() if error.retriable}
    # The others that aiokafka would try again are answers to other requests.
    assert known - again == {14, 15, 16, 41}
    assert {ANSWERS[code].why for code in known - again} == {
        "of consumer groups",
        "of administration, and between brokers",
    }


@pytest.mark.parametrize("code", [-7, 137, 4000])
def test_nothing_is_concluded_from_a_code_of_a_later_kafka(code):
    assert answer_of(code).meaning is Meaning.UNKNOWN
    assert str(code) in answer_of(code).name


# --- the handler of answers


def answered(batch: RecordBatch, *answers: object, version: type = ProduceResponse_v8) -> tuple[object, list]:
    """What the future of a batch ends with after these answers (codes, or errors of the connection), and
    whether it is sent again after each."""
    told: list[bool] = []

    async def run() -> object:
        target = TopicPartition("t", 3)
        message = MessageBatch(target, batch, 10, 0)
        sender = BatchSender.__new__(BatchSender)
        sender._retry_backoff = 0.1
        sender.client = SimpleNamespace(force_metadata_update=lambda: None)
        for answer in answers:
            handler = _Handler(sender, {target: message})
            if isinstance(answer, KafkaError):
                if not handler._can_retry(answer, message):
                    message.failure(answer)
                told.append(not message.future.done())
                continue
            code, *said = answer if isinstance(answer, tuple) else (answer,)
            row = (3, code, 41 if code == 0 else -1, -1, 0)
            if version is ProduceResponse_v8:
                row += tuple(said) or ([], None)
            handler.handle_response(version([("t", [row])], 0))
            told.append(not message.future.done())
            assert told[-1] == (message in handler._to_reenqueue)
        if not message.future.done():
            return None
        return message.future.exception() or message.future.result().offset

    return asyncio.run(run()), told


@pytest.mark.parametrize("version", [ProduceResponse_v7, ProduceResponse_v8])
@pytest.mark.parametrize("code", sorted(ANSWERS))
def test_every_code_ends_or_repeats_a_batch_as_the_table_says(code, version):
    batch = RecordBatch(1000)
    ended, (again,) = answered(batch, code, version=version)
    meaning = ANSWERS[code].meaning
    assert again == (meaning in {Meaning.RETRY, Meaning.RETRY_IN_DOUBT})
    assert batch.in_doubt == (meaning in {Meaning.RETRY_IN_DOUBT, Meaning.UNKNOWN})
    if meaning is Meaning.DEFINITE:
        assert isinstance(ended, BatchRefused)
        assert ended.reason.startswith(ANSWERS[code].name)
        assert ended.records == {}
    elif meaning is Meaning.UNKNOWN:
        assert type(ended) is KafkaError
        assert ANSWERS[code].name in str(ended)
    elif meaning is Meaning.DURABLE:
        assert ended == (41 if code == 0 else -1)


def test_kafkas_own_words_and_the_records_that_it_names_are_kept():
    refused, _ = answered(RecordBatch(1000), (87, [(2, "no such schema"), (5, None)], "2 records are bad"))
    assert refused.reason == "INVALID_RECORD: 2 records are bad"
    assert refused.records == {2: "INVALID_RECORD: no such schema", 5: "INVALID_RECORD: 2 records are bad"}


@pytest.mark.parametrize(
    ("before", "doubt"),
    [
        (19, False),
        (89, False),
        (7, True),
        (20, True),
        (6, True),
        (NodeNotReadyError(), False),
        (KafkaConnectionError("gone"), True),
        (kafka_errors.RequestTimedOutError(), True),
    ],
)
def test_a_refusal_says_nothing_of_an_attempt_before_that_may_have_been_appended(before, doubt):
    batch = RecordBatch(1000)
    ended, again = answered(batch, before, 29)
    assert again == [True, False]
    assert isinstance(ended, BatchRefused) != doubt
    assert batch.in_doubt == doubt
    assert "TOPIC_AUTHORIZATION_FAILED" in str(ended)


# --- who is to blame


def part(call: PublishCall, names: str, *, reported: bool = False) -> PartitionSlice:
    """One event for each letter."""
    made = PartitionSlice(call.event_ids, 3, 1)
    made.call = call
    for name in names:
        made.indices.append(len(call.event_ids))
        call.event_ids.append(name)
        made.types.append('"t"')
        made.routes.append(ROUTE)
        made.records.append(name.encode() * 10)
    made.size = 10 * len(names)
    made.reported = reported
    call.parts.append(made)
    call.open += 1
    return made


def names_of(parts: list[PartitionSlice]) -> str:
    for each in parts:
        assert len(each.types) == len(each.routes) == len(each.records) == len(each.indices)
    return "".join(name for each in parts for name in each.ids())


def refused(code: int, records: dict[int, str] | None = None) -> BatchRefused:
    return BatchRefused(ANSWERS[code], f"{ANSWERS[code].name}: because", records)


def parts_of(*groups: str) -> list[PartitionSlice]:
    return [part(PublishCall([], Generation()), names) for names in groups]


@pytest.mark.parametrize("code", sorted(of(Meaning.DEFINITE)))
def test_a_lone_event_is_rejected_whatever_the_refusal(code):
    rejected, again = triage(parts_of("a"), refused(code))
    assert [(names_of([each]), reason) for each, reason in rejected] == [
        ("a", f"{ANSWERS[code].name}: because")
    ]
    assert again == []


@pytest.mark.parametrize("code", [29, 31, 44, 17, 76, 21, 43])
def test_what_is_about_all_alike_rejects_all(code):
    rejected, again = triage(parts_of("ab", "cd"), refused(code))
    assert names_of([each for each, _ in rejected]) == "abcd"
    assert again == []


def test_the_named_are_rejected_with_their_own_reasons_and_the_others_go_on_in_order():
    rejected, again = triage(parts_of("abcd", "efg", "h"), refused(32, {1: "x", 2: "x", 3: "y", 7: "z"}))
    assert [(names_of([each]), reason) for each, reason in rejected] == [("bc", "x"), ("d", "y"), ("h", "z")]
    assert [names_of(group) for group in again] == ["aefg"]


def test_names_that_are_not_of_the_batch_name_nobody():
    rejected, again = triage(parts_of("ab", "cd"), refused(87, {4: "x", -1: "y"}))
    assert rejected == []
    assert [names_of(group) for group in again] == ["ab", "cd"]


def test_of_a_time_nobody_is_named_for_the_calls_are_separated():
    one, two = PublishCall([], Generation()), PublishCall([], Generation())
    _, again = triage([part(one, "ab"), part(two, "c"), part(one, "de")], refused(32))
    assert [names_of(group) for group in again] == ["ab", "c", "de"]
    rejected, again = triage([part(one, "ab"), part(one, "c")], refused(32))
    assert (names_of([each for each, _ in rejected]), again) == ("abc", [])


def test_too_large_together_they_are_packed_anew():
    _, again = triage(parts_of("ab", "cd"), refused(10))
    assert [names_of(group) for group in again] == ["abcd"]


@pytest.mark.parametrize("code", [10, 32, 87, 29])
def test_what_was_reported_unknown_is_never_sent_again(code):
    call = PublishCall([], Generation())
    parts = [part(call, "ab", reported=True), part(PublishCall([], Generation()), "cd")]
    rejected, again = triage(parts, refused(code))
    assert names_of([each for each, _ in rejected]).startswith("ab")
    assert "ab" not in "".join(names_of(group) for group in again)


class Broker:
    """Refuses every batch with one of the bad records; ``names``: and says which."""

    def __init__(self, bad: set[str], code: int, *, names: bool, limit: int = 10**9) -> None:
        self.bad, self.code, self.names, self.limit = bad, code, names, limit
        self.log: list[str] = []
        self.requests = 0

    def produce(self, parts: list[PartitionSlice], batch: RecordBatch) -> BatchRefused | None:
        self.requests += 1
        written = names_of(parts)
        if batch.size() > self.limit:
            return refused(10)
        if guilty := {place: "bad" for place, name in enumerate(written) if name in self.bad}:
            return refused(self.code, guilty if self.names else None)
        self.log += written
        return None


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.sets(st.sampled_from(LETTERS)),
    st.booleans(),
    st.sampled_from([200, 10**9]),
)
def test_only_the_guilty_are_rejected_and_the_others_keep_their_order(sizes, bad, names, limit):
    rest = deque(LETTERS)
    parts = [
        part(PublishCall([], Generation()), "".join(rest.popleft() for _ in range(size))) for size in sizes
    ]
    all_names = names_of(parts)
    queue, broker = PartitionQueue(3), Broker(bad, 87, names=names, limit=limit)
    bound = BatchLimit(10**6, 10**6)
    queue.waiting += parts
    rejected: list[str] = []
    while True:
        taken, batch = queue.next_batch(bound.bytes, None)
        if not taken:
            break
        assert broker.requests < 300
        if (answer := broker.produce(taken, batch)) is None:
            continue
        if answer.answer.blame is Blame.SIZE:
            bound.refused(batch.size(), batch.record_count())
        guilty, again = triage(taken, answer)
        for each, _ in guilty:
            each.state = State.REJECTED
            rejected += names_of([each])
        queue.give_back(again)
    assert set(rejected) == bad & set(all_names)
    assert broker.log == [name for name in all_names if name not in bad]


# --- the limit


def test_the_limit_is_the_smaller_one_and_is_learnt():
    limit = BatchLimit(256_000, 1_000_000)
    assert (limit.bytes, limit.event_bytes) == (256_000, 999_900)
    limit = BatchLimit(256_000, 50_000)
    assert (limit.bytes, limit.event_bytes) == (50_000, 49_900)
    limit.refused(40_000, 20)
    assert limit.bytes == 20_000
    limit.refused(15_000, 1)
    assert limit.bytes == 14_999, "a lone event says that the limit is lower than it"
    limit.refused(400_000, 20)
    assert limit.bytes == 14_999
    assert limit.event_bytes == 49_900, "only the topic itself says what an event may have"


def test_what_was_learnt_gives_way_to_news_and_is_else_forgotten_by_halves():
    limit = BatchLimit(256_000, 1_000_000)
    limit.refused(200_000, 9)
    limit.read(1_000_000)
    assert limit.bytes == 200_000
    limit.read(1_000_000)
    assert limit.bytes == 256_000
    limit.refused(200_000, 9)
    limit.read(80_000)
    assert (limit.bytes, limit.event_bytes) == (80_000, 79_900)
    limit.read(1_000_000)
    assert limit.bytes == 256_000


# --- generations


class Calls:
    """Calls of several generations: which are open, and which were let go on."""

    def __init__(self) -> None:
        self.generation = Generation()
        self.number = 0
        self.open: dict[PublishCall, int] = {}
        self.made: list[PublishCall] = []
        self.gone: list[PublishCall] = []

    def call(self) -> None:
        made = PublishCall([], self.generation)
        self.made.append(made)
        self.open[made] = self.number
        self.generation.open += 1
        (self.gone if self.generation.before is None else self.generation.held).append(made)

    def grow(self) -> None:
        self.generation, self.number = self.generation.next(), self.number + 1

    def settle(self, place: int) -> None:
        """Also one that is still held: its deadline has passed."""
        settled = list(self.open)[place]
        del self.open[settled]
        self.gone += [freed for freed in settled.generation.leave() if freed in self.open]


@given(st.lists(st.sampled_from(["call", "call", "grow", "settle", "settle last"]), max_size=80))
def test_the_calls_of_a_generation_go_on_when_all_before_are_settled_and_not_earlier(steps):
    calls = Calls()
    for step in steps:
        if step in {"call", "grow"}:
            getattr(calls, step)()
        elif calls.open:
            calls.settle(0 if step == "settle" else -1)
        oldest = min(calls.open.values(), default=0)
        waiting = [number for call, number in calls.open.items() if call not in calls.gone]
        going = [number for call, number in calls.open.items() if call in calls.gone]
        assert all(number == oldest for number in going)
        assert all(number > oldest for number in waiting)
    assert calls.gone == [call for call in calls.made if call in calls.gone], "in order, and once"


def test_the_text_of_an_unknown_outcome_speaks_of_time_only_where_there_was_no_answer():
    call = PublishCall([], Generation())
    answered_part, silent = part(call, "ab"), part(call, "c")
    silent.state = State.IN_FLIGHT
    answered_part.state = State.DURABLE
    error = call.error()
    assert isinstance(error, OutcomeUnknown)
    assert "1 of 3 events may be in the log: handed over, and not acknowledged in time" in str(error)
    answered_part.state, answered_part.reason = (
        State.LOST,
        "its answer leaves that open (UNKNOWN_SERVER_ERROR)",
    )
    assert "3 of 3 events may be in the log: its answer leaves that open (UNKNOWN_SERVER_ERROR)" in str(
        call.error()
    )
    assert "in time" not in str(call.error())
