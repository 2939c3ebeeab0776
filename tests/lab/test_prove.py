"""The isolation proof on a real stack, short: who fails, who does not, and what becomes of a Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import re
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dualstream_lab import Event, Settings
from dualstream_lab.cli.root import run
from dualstream_lab.errors import ConfigError, OutcomeUnknown, PublishRejected, StackError
from dualstream_lab.lab.isolation.blocks import Timing
from dualstream_lab.lab.isolation.generator import ThirdPartyPublisher, load_maker
from dualstream_lab.lab.isolation.judgement import Rules
from dualstream_lab.lab.isolation.observer import SourcesOfPlan, identity_of_record
from dualstream_lab.lab.isolation.proof import Options, Progress, Proof, prove
from dualstream_lab.lab.isolation.text import overview
from dualstream_lab.recording import RunDirectory, list_runs
from dualstream_lab.verdict.checker import Validity
from dualstream_lab.workload import RunIds, Workload
from tests.kafka_log.hostile import grow

if TYPE_CHECKING:
    from dualstream_lab.stack import LocalStack

EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = Timing(length=1.0, after=0.4, head=0.1, warm_up=0.1, first=0.5)
# Other tests may use the machine, too: what is judged here is who fails, not by how many microseconds.
LENIENT = Rules(ms=300.0, background=64.0)

# A fake, to be caught: it loses one event in a hundred, and says that all is well.
LIAR = """
from examples_my_publisher import make_publisher as honest

class Liar:
    def __init__(self, inner):
        self.inner = inner
        self.count = 0
    async def publish_batch(self, events):
        self.count += len(events)
        if self.count % 100 >= len(events):
            await self.inner.publish_batch(events)
        elif events[1:]:
            await self.inner.publish_batch(events[1:])
    async def close(self):
        await self.inner.close()

async def make_publisher(kafka_url, redis_url, topic):
    print("what it prints is not in the way")
    return Liar(await honest(kafka_url, redis_url, topic))
"""

# A fake, to be caught: of one event in fifty it writes another source's.
MISTAKEN = """
from aiokafka import AIOKafkaProducer
from msgspec.structs import replace

from dualstream_lab.event import encode_event

class Mistaken:
    def __init__(self, producer, topic):
        self.producer, self.topic, self.count = producer, topic, 0
    async def publish_batch(self, events):
        sent = []
        for event in events:
            self.count += 1
            if self.count % 50 == 0:
                event = replace(event, source_id="somebody/else")
            key = event.source_id.encode()
            sent.append(await self.producer.send(self.topic, encode_event(event), key=key))
        for future in sent:
            await future
    async def close(self):
        await self.producer.stop()

async def make_publisher(kafka_url, redis_url, topic):
    producer = AIOKafkaProducer(bootstrap_servers=kafka_url, acks="all", metadata_max_age_ms=200)
    await producer.start()
    return Mistaken(producer, topic)
"""


def options(*faults: str, seconds: float = 40.0, rate: float = 500.0, **more: object) -> Options:
    given: dict[str, object] = {"timing": SHORT, "rules": LENIENT} | more
    return Options(faults=faults, rate=rate, time=seconds, **given)  # type: ignore[arg-type]


async def test_ours_does_not_fail_when_redis_is_killed(stack: LocalStack, topic: str, tmp_path: Path) -> None:
    proof = await prove(options("redis.kill", rate=2000), root=tmp_path, stack=stack, topic=topic)
    (kill,) = proof.judgement.faults
    assert kill.verdict is not Validity.INVALID, kill.reasons
    assert (kill.failed, kill.missing, kill.twice, kill.unaccounted) == (0, 0, 0, 0)
    assert kill.p99.pairs
    assert kill.dropped is not None
    assert sum(kill.dropped.values()) > 0  # else it was not killed
    assert all(again is not None and again < 8 for again in kill.live_again)
    judgement = proof.judgement
    assert judgement.notified is not None
    assert judgement.durable == judgement.events == judgement.notified + judgement.dropped
    assert Proof.of(proof.path).judgement == judgement  # from what is kept


async def test_functionally_one_short_block_a_fault_decides(
    stack: LocalStack, topic: str, tmp_path: Path
) -> None:
    said: list[str] = []
    doing: list[str] = []
    faults = ("redis.kill", "redis.readonly")
    given = options(*faults, rules=Rules(latency_judged=False, background=0.0))
    proof = await prove(
        given, root=tmp_path, stack=stack, topic=topic, say=said.append,
        show=lambda progress: doing.append(progress.doing),
    )  # fmt: skip
    judgement = proof.judgement
    assert judgement.verdict is Validity.VALID, [fault.reasons for fault in judgement.faults]
    assert judgement.blocks == 4
    assert all(fault.bite and fault.p99.pairs == 1 for fault in judgement.faults)
    assert doing[2:6] == ["healthy done", "redis.kill", "redis.kill done", "redis.readonly"]
    assert [line.partition(": ")[0] for line in said if line.endswith(" ms, not judged")] == [
        f"{fault} passes" for fault in faults
    ]
    assert Proof.of(proof.path).judgement == judgement  # from what is kept


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"options": 7}, "Expected `object`, got `int` - at `$.options`"),
        ({"options": {"rate": "fast"}}, "at `$.options.rate`"),
        ({"options": {"faults": ["rm"]}}, "--faults: 'rm' is none of"),
        ({"options": {"timing": []}}, "at `$.options.timing`"),
        ({"options": {"publisher": 3}}, "3 is no path"),
        ({"notes": ["a"]}, "at `$.notes`"),
        ({"state": "well"}, "at `$.state`"),
        ({"machine": None}, "at `$.machine`"),
        ({"seconds": "long"}, "at `$.seconds`"),
        ([], "Expected `object`, got `array`"),
        (b"[" * 100_000, "does not hold a proof"),
        (b"\xff\xfe", "does not hold a proof"),
        (None, "does not hold a proof"),
    ],
)
def test_a_directory_of_a_strangers_is_one_line(
    tmp_path: Path, wrong: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = json.loads(json.dumps(Options().as_dict()))
    good = {
        "proof": "redis-isolation", "options": kept, "state": "finished", "notes": {}, "began": "then",
        "seconds": 1.5, "machine": {"cores": 2, "architecture": "x", "system": "y"}, "versions": {},
    }  # fmt: skip
    if isinstance(wrong, dict):
        options_wrong = wrong.get("options")
        wrong = good | wrong | ({"options": kept | options_wrong} if isinstance(options_wrong, dict) else {})
    if wrong is not None:
        text = wrong if isinstance(wrong, bytes) else json.dumps(wrong).encode()
        (tmp_path / "proof.json").write_bytes(text)
    assert run(["prove", "redis-isolation", "--from", str(tmp_path)]) != 0
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


async def test_one_that_waits_for_redis_is_graded_as_failing(
    stack: LocalStack, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = options("redis.stop", rules=Rules(background=64.0), publisher=EXAMPLES / "awaiting_publisher.py")
    proof = await prove(given, root=tmp_path, stack=stack, topic=topic)
    (stop,) = proof.judgement.faults
    assert stop.verdict is Validity.INVALID
    assert stop.p99.low > stop.margin
    assert stop.failed == stop.missing == 0  # it looks safe
    page, xml, kept = (tmp_path / name for name in ("proof.html", "proof.xml", "proof.json"))
    words = ["prove", "redis-isolation", "--from", str(proof.path)]
    words += ["--html", str(page), "--junit", str(xml), "--json", str(kept)]
    assert await asyncio.to_thread(run, words) == 99
    assert "Redis trouble reaches its publishes (redis.stop)" in capsys.readouterr().out
    assert "<svg" in page.read_text()
    assert re.findall(r'(?:src|href)="[^#]', page.read_text()) == []  # self-contained
    assert ET.parse(xml).find(".//testcase/failure") is not None
    assert json.loads(kept.read_text())["judgement"]["verdict"] == "FAILS"


async def test_the_topic_is_believed_and_not_the_publisher(
    stack: LocalStack, topic: str, tmp_path: Path
) -> None:
    (tmp_path / "examples_my_publisher.py").write_text((EXAMPLES / "my_publisher.py").read_text())
    liar = tmp_path / "liar.py"
    liar.write_text(LIAR)
    proof = await prove(options("redis.kill", publisher=liar), root=tmp_path, stack=stack, topic=topic)
    judgement = proof.judgement
    assert judgement.verdict is Validity.INVALID
    assert judgement.failed == 0
    assert judgement.healthy_missing >= 3
    assert judgement.durable > 300


async def test_an_event_under_another_source_is_not_the_one_that_was_published(
    stack: LocalStack, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "mistaken.py"
    file.write_text(MISTAKEN)
    proof = await prove(options("redis.kill", publisher=file), root=tmp_path, stack=stack, topic=topic)
    judgement = proof.judgement
    assert judgement.verdict is Validity.INVALID
    assert judgement.failed == 0
    assert judgement.wrong_source == judgement.missing >= 10
    assert any("name another source" in text for _, text in overview(proof))


async def test_partitions_that_are_added_meanwhile_are_read(
    stack: LocalStack, topic: str, tmp_path: Path
) -> None:
    file = tmp_path / "growing.py"
    file.write_text(MISTAKEN.replace("% 50 == 0", "< 0"))
    grown: list[str] = []

    def show(progress: Progress) -> None:
        if progress.doing == "redis.kill" and not grown:
            grown.append(topic)
            grow_now(stack, topic, 13)

    given = options("redis.kill", publisher=file)
    proof = await prove(given, root=tmp_path, stack=stack, topic=topic, show=show)
    judgement = proof.judgement
    assert (judgement.missing, judgement.wrong_source, judgement.unread) == (0, 0, ())
    rows = [directory.rows("consumed").column("partition").to_pylist() for directory in blocks(proof.path)]
    assert max(rows[0]) < 6 <= max(rows[-1])


def grow_now(stack: LocalStack, topic: str, partitions: int) -> None:
    """At once: the proof waits."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, grow(stack.kafka_url, topic, partitions)).result()


def blocks(path: Path) -> list[RunDirectory]:
    found = [directory for directory in list_runs(path) if isinstance(directory, RunDirectory)]
    return sorted(found, key=lambda directory: directory.path.name)


async def test_ctrl_c_mends_redis_and_judges_what_was_measured(
    stack: LocalStack, topic: str, tmp_path: Path
) -> None:
    shown: asyncio.Queue[str] = asyncio.Queue()

    def show(progress: Progress) -> None:
        shown.put_nowait(progress.doing)

    making = asyncio.create_task(
        prove(options("redis.stop"), root=tmp_path, stack=stack, topic=topic, show=show)
    )
    while await shown.get() != "redis.stop":
        pass
    while not stack.redis.paused:  # noqa: ASYNC110  (a process of the system has no event to wait for)
        await asyncio.sleep(0.005)
    making.cancel()
    proof = await making
    assert not stack.redis.paused
    assert proof.state == "interrupted"
    assert proof.judgement.blocks == 1
    assert proof.judgement.verdict is Validity.INCONCLUSIVE
    assert await asyncio.to_thread(run, ["prove", "redis-isolation", "--from", str(proof.path)]) == 130


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", "no make_publisher"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError"),
        ("def f(:", "line 1: SyntaxError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def make_publisher(kafka_url, redis_url, topic): ...", "not `async def`"),
        ("async def make_publisher(url): ...", "too many positional arguments"),
    ],
)
def test_a_file_that_is_no_publisher_is_named_with_what_is_needed(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))  # undoes what loading adds
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_maker(file)
    assert str(file) in str(caught.value)
    assert told in str(caught.value)


def test_the_command_says_so_before_it_starts_a_broker(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prove", "redis-isolation", "--publisher", str(tmp_path / "none.py"), "--runs", str(tmp_path)]
    assert run(words) == 2
    told = capsys.readouterr().err
    assert "none.py is not a Python file" in told
    assert "async def make_publisher(kafka_url, redis_url, topic)" in told
    assert "starting Kafka" not in told


async def test_what_make_publisher_returns_or_raises_is_checked() -> None:
    settings = Settings.load(kafka_url="127.0.0.1:1", redis_url="redis://127.0.0.1:1")

    async def nothing(*_: object) -> object:
        return object()

    async def broken(*_: object) -> object:
        raise ConnectionError("no such host")

    with pytest.raises(ConfigError, match=r"mine\.py returned .* has no async publish_batch"):
        await ThirdPartyPublisher.make(nothing, Path("mine.py"), settings)
    with pytest.raises(StackError, match=r"mine\.py failed: ConnectionError: no such host"):
        await ThirdPartyPublisher.make(broken, Path("mine.py"), settings)


async def test_whatever_it_raises_is_a_failure_and_a_hang_ends() -> None:
    class Raises:
        async def publish_batch(self, events: object) -> None:
            raise KeyError("x")

    class Hangs:
        async def publish_batch(self, events: object) -> None:
            await asyncio.Event().wait()

    event = Event(type="push", source_type="user", source_id="octocat")
    with pytest.raises(PublishRejected, match="KeyError: 'x'"):
        await ThirdPartyPublisher(Raises(), 5.0).publish(event)
    with pytest.raises(OutcomeUnknown, match=r"within 0.05 s"):
        await ThirdPartyPublisher(Hangs(), 0.05).publish(event)


def test_an_event_is_found_in_records_of_any_make() -> None:
    assert identity_of_record([("ce_id", b"a")], b'{"id":"b"}') == (None, "a")
    assert identity_of_record([("x", b"1")], b'{"type": "t", "id": "b"}') == (None, "b")
    told = b'{"id":"b","source_type":"repo","source_id":"o/r"}'
    assert identity_of_record([("ce_id", b"a"), ("ce_source", b"https://mine")], told) == ("repo:o/r", "a")
    for value in (None, b"", b"\xff\x00", b"[1]", b'{"id": 7}', b'{"type":"t"}'):
        assert identity_of_record([], value) == (None, None)


def test_the_sources_of_a_plan_are_those_of_its_events() -> None:
    workload = Workload(rate=1000, duration=20, sources=50, seed=3)
    sources, catalogue = SourcesOfPlan(workload), workload.catalogue(RunIds("0" * 24))
    for slots in workload.slots(chunk=100):
        seq, source, kind, size = (
            int(column[-1]) for column in (slots.seq, slots.source, slots.type, slots.size)
        )
        (event,) = catalogue.events([seq], [source], [kind], [size], datetime.now(UTC))
        assert sources[seq] == f"{event.source_type}:{event.source_id}"
    with pytest.raises(IndexError):
        _ = sources[20_000]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--faults", "redis.gone"], "--faults: 'redis.gone' is none of redis.kill"),
        (["--faults", "kafka.kill"], "--faults: 'kafka.kill' is none of"),
        (["--rate", "0"], "--rate: must be from 100"),
        (["--time", "1s"], "--time: must be from 20"),
        (["--html", "/nowhere/at/all/x.html"], "cannot be written"),
        (
            ["--functional", "--margin", "2"],
            "--functional judges no latency, in a form of its own: leave --margin",
        ),
        (["--functional", "--others", "1"], "leave --others out"),
        (["--functional", "--quick"], "leave --quick out"),
        (["--functional", "--from", "runs"], "leave --from out"),
    ],
)
def test_bad_options_are_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prove", "redis-isolation", *words]) == 2
    assert told in capsys.readouterr().err
