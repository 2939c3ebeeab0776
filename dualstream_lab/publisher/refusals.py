"""What Kafka's answer to a batch means: is it in the log, may it be, and who of it is to blame. Pure.

The codes are the protocol's (``org.apache.kafka.common.protocol.Errors`` of Kafka 4.4). aiokafka knows half
of them, and takes every other for an unexpected server error. The question is always the same: can anything
of the batch be in the log, now or later? Whatever is checked before the broker appends is a definite "no".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from itertools import groupby
from typing import Final, NamedTuple

from dualstream_lab.publisher.call import PartitionSlice


class Meaning(Enum):
    """What is known of a batch after an answer."""

    DURABLE = "it is in the log"
    DEFINITE = "nothing of it is in the log, or will be"
    RETRY = "nothing of it was appended: it is sent again"
    RETRY_IN_DOUBT = (
        "it may have been appended: sent again, its sequence numbers keep it from being there twice"
    )
    UNKNOWN = "it may be in the log, and this producer cannot go on"


class Blame(Enum):
    """Whom a definite refusal is about, where Kafka does not name the records."""

    BATCH = "all of it alike: who sends, where to, in which form"
    SIZE = "its size: a smaller one may pass"
    CALL = "the time that the events of a call share"
    RECORD = "some of its records"


class Answer(NamedTuple):
    """A code of the protocol. ``stale``: the broker asked is not, or no longer, the right one."""

    code: int
    name: str
    meaning: Meaning
    why: str
    blame: Blame = Blame.BATCH
    stale: bool = False


class BatchRefused(Exception):
    """Kafka refused a batch for good: nothing of it is in the log.

    ``reason``: the code's name and Kafka's own words. ``records``: what it said of single records, by their
    place in the batch; empty where it named none.
    """

    def __init__(self, answer: Answer, reason: str, records: Mapping[int, str] | None = None) -> None:
        super().__init__(reason)
        self.answer = answer
        self.reason = reason
        self.records: Mapping[int, str] = records or {}


_KNOWN: Final = (
    Answer(0, "NONE", Meaning.DURABLE, "appended, and copied as acks=all asks"),
    Answer(46, "DUPLICATE_SEQUENCE_NUMBER", Meaning.DURABLE, "an earlier attempt was appended"),
    # Definite: a broker looks at all of this before it appends anything
    Answer(2, "CORRUPT_MESSAGE", Meaning.DEFINITE, "its checksum is wrong"),
    Answer(10, "MESSAGE_TOO_LARGE", Meaning.DEFINITE, "the topic's max.message.bytes is less", Blame.SIZE),
    Answer(17, "INVALID_TOPIC_EXCEPTION", Meaning.DEFINITE, "nobody may write to a topic of that name"),
    Answer(18, "RECORD_LIST_TOO_LARGE", Meaning.DEFINITE, "the topic's segment.bytes is less", Blame.SIZE),
    Answer(21, "INVALID_REQUIRED_ACKS", Meaning.DEFINITE, "acks=all is not taken"),
    Answer(29, "TOPIC_AUTHORIZATION_FAILED", Meaning.DEFINITE, "this user may not write to the topic"),
    Answer(31, "CLUSTER_AUTHORIZATION_FAILED", Meaning.DEFINITE, "this user may not write idempotently"),
    Answer(32, "INVALID_TIMESTAMP", Meaning.DEFINITE, "the topic does not take its time", Blame.CALL),
    Answer(35, "UNSUPPORTED_VERSION", Meaning.DEFINITE, "the broker does not know the request's version"),
    Answer(42, "INVALID_REQUEST", Meaning.DEFINITE, "the broker does not understand the request"),
    Answer(43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", Meaning.DEFINITE, "the topic's message format is too old"),
    Answer(44, "POLICY_VIOLATION", Meaning.DEFINITE, "a policy of the cluster forbids it"),
    Answer(53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", Meaning.DEFINITE, "this user may not write"),
    Answer(76, "UNSUPPORTED_COMPRESSION_TYPE", Meaning.DEFINITE, "the broker does not know the codec"),
    Answer(87, "INVALID_RECORD", Meaning.DEFINITE, "the broker found it invalid", Blame.RECORD),
    # Nothing appended yet
    Answer(19, "NOT_ENOUGH_REPLICAS", Meaning.RETRY, "fewer replicas than min.insync.replicas are in sync"),
    Answer(74, "FENCED_LEADER_EPOCH", Meaning.RETRY, "there is another leader", stale=True),
    Answer(75, "UNKNOWN_LEADER_EPOCH", Meaning.RETRY, "there is another leader", stale=True),
    Answer(89, "THROTTLING_QUOTA_EXCEEDED", Meaning.RETRY, "the quota is used up"),
    # A leader may have appended it and have lost its place since, before the followers had it
    Answer(3, "UNKNOWN_TOPIC_OR_PARTITION", Meaning.RETRY_IN_DOUBT, "it may have been there", stale=True),
    Answer(5, "LEADER_NOT_AVAILABLE", Meaning.RETRY_IN_DOUBT, "it may have had one", stale=True),
    Answer(6, "NOT_LEADER_OR_FOLLOWER", Meaning.RETRY_IN_DOUBT, "it may have been the leader", stale=True),
    Answer(7, "REQUEST_TIMED_OUT", Meaning.RETRY_IN_DOUBT, "appended, and not copied in time"),
    Answer(8, "BROKER_NOT_AVAILABLE", Meaning.RETRY_IN_DOUBT, "it may have been", stale=True),
    Answer(9, "REPLICA_NOT_AVAILABLE", Meaning.RETRY_IN_DOUBT, "it may have been", stale=True),
    Answer(13, "NETWORK_EXCEPTION", Meaning.RETRY_IN_DOUBT, "the connection broke on the way", stale=True),
    Answer(20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", Meaning.RETRY_IN_DOUBT, "appended, and copied too seldom"),
    Answer(56, "KAFKA_STORAGE_ERROR", Meaning.RETRY_IN_DOUBT, "the disk failed while appending", stale=True),
    Answer(100, "UNKNOWN_TOPIC_ID", Meaning.RETRY_IN_DOUBT, "it may have been there", stale=True),
    Answer(103, "INCONSISTENT_TOPIC_ID", Meaning.RETRY_IN_DOUBT, "it may have been there", stale=True),
    Answer(108, "NEW_LEADER_ELECTED", Meaning.RETRY_IN_DOUBT, "it may have been the leader", stale=True),
    # Nothing can be concluded, or no later batch of this producer can be taken
    Answer(-1, "UNKNOWN_SERVER_ERROR", Meaning.UNKNOWN, "the broker failed, perhaps after it had appended"),
    Answer(45, "OUT_OF_ORDER_SEQUENCE_NUMBER", Meaning.UNKNOWN, "the log lacks an earlier batch"),
    Answer(47, "INVALID_PRODUCER_EPOCH", Meaning.UNKNOWN, "a newer producer has this one's id"),
    Answer(48, "INVALID_TXN_STATE", Meaning.UNKNOWN, "of transactions, which are not used"),
    Answer(49, "INVALID_PRODUCER_ID_MAPPING", Meaning.UNKNOWN, "of transactions, which are not used"),
    Answer(51, "CONCURRENT_TRANSACTIONS", Meaning.UNKNOWN, "of transactions, which are not used"),
    Answer(
        59, "UNKNOWN_PRODUCER_ID", Meaning.UNKNOWN, "the log forgot this producer, and its earlier attempts"
    ),
    Answer(90, "PRODUCER_FENCED", Meaning.UNKNOWN, "a newer producer has this one's id"),
    Answer(120, "TRANSACTION_ABORTABLE", Meaning.UNKNOWN, "of transactions, which are not used"),
)

# Answers to other requests. From one of these, or a code of a later Kafka, nothing can be concluded.
_OF_OTHER_REQUESTS: Final = {
    "of fetching": (1, 4, 70, 71, 78, 99, 106, 109, 121, 122, 123, 133),
    "of consumer groups": (
        *(12, 14, 15, 16, *range(22, 29), 30, 68, 69, 79, 81, 82, 86, 88),
        *(110, 111, 112, 113, 124, 128, 130, 131, 132, 134, 135),
    ),
    "of transactions, which are not used": (50, 52, 105),
    "of log-in": (33, 34, 54, 58, *range(61, 68), 93, 97),
    "of administration, and between brokers": (
        *(11, *range(36, 42), 55, 57, 60, 72, 73, 77, 80, 83, 84, 85, 91, 92, *range(94, 97), 98),
        *(101, 102, 104, 107, *range(114, 120), 125, 126, 127, 129, 136),
    ),
}

ANSWERS: Final[Mapping[int, Answer]] = {answer.code: answer for answer in _KNOWN} | {
    code: Answer(code, f"error {code}", Meaning.UNKNOWN, why)
    for why, codes in _OF_OTHER_REQUESTS.items()
    for code in codes
}
"""What is known, by code."""


def answer_of(code: int) -> Answer:
    """The meaning of a code; UNKNOWN for one that is not known."""
    known = ANSWERS.get(code)
    return Answer(code, f"error {code}", Meaning.UNKNOWN, "of a later Kafka") if known is None else known


class Triage(NamedTuple):
    """``rejected`` with their reasons. ``again``: in order, each to be sent in a batch of its own."""

    rejected: list[tuple[PartitionSlice, str]]
    again: list[list[PartitionSlice]]


def triage(parts: list[PartitionSlice], refused: BatchRefused) -> Triage:
    """Who is to blame, as far as Kafka says; where it does not, they are separated until it is known.

    A slice that was reported unknown is never sent again: its caller may have done so.
    """
    rejected = [(part, refused.reason) for part in parts if part.reported]
    if any(0 <= place < sum(map(len, parts)) for place in refused.records):
        named, again = _named(parts, refused.records)
        return Triage(rejected + named, again)
    suspects = [part for part in parts if not part.reported]
    separated = _separated(suspects, refused.answer.blame)
    if separated is None:
        rejected += [(part, refused.reason) for part in suspects]
    return Triage(rejected, separated or [])


def _named(parts: list[PartitionSlice], records: Mapping[int, str]) -> Triage:
    """The records that Kafka names are cut out, the others go on."""
    rejected: list[tuple[PartitionSlice, str]] = []
    innocent: list[PartitionSlice] = []
    first = 0
    for part in parts:
        reasons = [records.get(first + place) for place in range(len(part))]
        first += len(part)
        rest = part
        for reason, run in [] if part.reported else groupby(reasons):
            piece, size = rest, len(list(run))
            if size < len(piece):
                rest = piece.split(size)
            if reason is None:
                innocent.append(piece)
            else:
                rejected.append((piece, reason))
    return Triage(rejected, [innocent] if innocent else [])


def _separated(parts: list[PartitionSlice], blame: Blame) -> list[list[PartitionSlice]] | None:
    """Smaller batches of them, of which the innocent will pass; None for those that cannot be separated."""
    if sum(map(len, parts)) <= 1:
        return None
    if blame is Blame.SIZE:
        return [parts]  # as many as have room: by now the limit is lower
    if blame is Blame.CALL:
        calls = [list(of_call) for _, of_call in groupby(parts, key=lambda part: id(part.call))]
        return calls if len(calls) > 1 else None
    return _halves(parts) if blame is Blame.RECORD else None


def _halves(parts: list[PartitionSlice]) -> list[list[PartitionSlice]]:
    """The first and the second half of their events."""
    left = sum(map(len, parts)) // 2
    halves: list[list[PartitionSlice]] = [[], []]
    for part in parts:
        if 0 < left < len(part):
            halves[1].append(part.split(left))
        halves[0 if left else 1].append(part)
        left -= min(left, len(part))
    return halves
