"""Files of events from strangers: read where it is plain what is meant, else refused in one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstream_lab.errors import EventError, StackError
from dualstream_lab.ingest import Ingest, Reader
from dualstream_lab.ingest.splitting import Splitter, Unreadable

EVENT = {"type": "t", "source_type": "repo", "source_id": "a", "data": {"s": 'q"[{\\,]}', "n": [1, [2]]}}


gzipped = partial(gzip.compress, mtime=0)  # of no time: two workers must name their tests alike


def split(data: bytes, size: int = 2**20) -> tuple[str, list[bytes | Unreadable]]:
    splitter = Splitter()
    texts = [text for at in range(0, len(data), size) for text in splitter.feed(data[at : at + size])]
    texts += splitter.finish()
    return splitter.unit, texts


json_values = st.recursive(
    st.none() | st.integers() | st.text() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
packed = st.sampled_from(
    [bytes, gzip.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])]
)
mark = st.sampled_from([b"", b"\xef\xbb\xbf"])


@given(st.lists(json_values, min_size=1), st.integers(1, 9), st.sampled_from([None, 1]), mark, packed)
def test_an_array_gives_its_elements_however_it_comes(values, size, indent, mark, pack) -> None:
    text = mark + b" \n" + json.dumps(values, indent=indent, ensure_ascii=False).encode()
    unit, texts = split(pack(text), size)
    assert unit == "event"
    assert [json.loads(text) for text in texts] == values


lines_of_bytes = st.lists(st.binary().map(lambda line: b"{" + line.replace(b"\n", b" ")), min_size=1)


@given(lines_of_bytes, st.integers(1, 9), mark, packed, st.booleans())
def test_lines_are_told_apart_however_they_come(lines, size, mark, pack, ended) -> None:
    if lines[0].startswith(b"{\x00"):
        lines[0] = b"{}"
    text = mark + b"\n".join(lines) + b"\n" * ended
    assert split(pack(text), size) == ("line", lines)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("{}\n".encode("utf-16"), "UTF-16"),
        ("{}\n".encode("utf-16-le"), "UTF-16"),
        ("{}\n".encode("utf-16-be"), "UTF-16"),
        (gzipped("{}\n".encode("utf-16")), "UTF-16"),
        (gzipped(gzipped(b"{}\n")), "gzipped twice"),
        (bz2.compress(b"{}"), "bzip2"),
        (lzma.compress(b"{}"), "xz"),
        (b"PK\x03\x04 and so on", "ZIP"),
        (b"PAR1 and so on", "Parquet"),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_surely_no_file_of_events_is_named(data, what, size) -> None:
    with pytest.raises(EventError, match=what):
        split(data, size)


@pytest.mark.parametrize(
    ("data", "good", "reason"),
    [
        (b'[{"a":1},{"a":2}', 1, "ends within the array"),
        (b'[{"a":1},{"a":"2', 1, "ends within the array"),
        (b'[{"a":1},', 1, "ends within the array"),
        (b'[{"a":1}] [2]', 1, "behind the end of the array"),
        (gzipped(b'{"a":1}\n{"a":2}\n' * 1000)[:-9], 2000, "end too early"),
        (gzipped(b'{"a":1}\n') + b"not gzip", 1, "damaged"),
        (gzipped(b'{"a":1}\n') + b"\0" * 512, 1, None),
    ],
)
def test_what_is_damaged_is_said_behind_what_is_good(data, good, reason) -> None:
    for size in (1, 7, 10_000):
        _, texts = split(data, size)
        assert sum(isinstance(text, bytes) for text in texts) == good
        assert [text.reason for text in texts[good:]] == ([] if reason is None else [texts[-1].reason])
        assert reason is None or reason in texts[-1].reason


@pytest.mark.parametrize("begin", [b"{", b'["', b"[{", b"["])
@pytest.mark.parametrize("packed", [False, True])
def test_a_text_without_end_is_refused_and_never_held(begin, packed) -> None:
    """Also where a megabyte of gzip unpacks to it."""
    code = f"""
import tracemalloc, zlib
from dualstream_lab.ingest.splitting import Splitter
tracemalloc.start()
splitter, more, texts = Splitter(), b"y" * 2**20, []
packer = zlib.compressobj(1, wbits=31)
def pieces():
    yield {begin!r}
    for _ in range(256):
        yield more
    yield b"\\n{{}}\\n"
for piece in pieces():
    texts += splitter.feed(packer.compress(piece) if {packed} else piece)
texts += splitter.feed(packer.flush() if {packed} else b"")
texts += splitter.finish()
print(len(texts), len(texts[0].raw), texts[0].reason)
assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    count, kept, reason = done.stdout.split(maxsplit=2)
    assert int(kept) == 1024
    if begin == b"{":
        assert (count, reason.split()[0]) == ("2", "has")
    else:
        assert (count, reason) == ("1", "the file ends within the array\n")


class Log:
    """A publisher that keeps the events; ``fails``: its call of that number does."""

    def __init__(self, fails: int = 0) -> None:
        self.events = []
        self.calls = 0
        self.fails = fails

    async def publish_batch(self, events) -> None:
        self.calls += 1
        if self.calls == self.fails:
            raise StackError("no")
        self.events += events


async def published(data: bytes, tmp_path, **more):
    path = tmp_path / "events"
    path.write_bytes(data)
    log, rejects = Log(**more), []
    ingest = Ingest(log, form="event", on_reject=rejects.append)
    with path.open("rb") as file:
        await ingest.run(Reader(file).read)
    return log.events, rejects, ingest.progress


async def test_a_file_of_any_form_is_published(tmp_path) -> None:
    line = json.dumps(EVENT).encode()
    array = json.dumps([EVENT] * 1500, indent=2).encode()
    for data in (line + b"\r\n", b"\xef\xbb\xbf" + line, gzip.compress(line), array, gzip.compress(array)):
        events, rejects, progress = await published(data, tmp_path)
        assert {json.dumps(json.loads(bytes(event.data))) for event in events} == {json.dumps(EVENT["data"])}
        assert (rejects, progress.read) == ([], len(events))


async def test_the_sample_file_is_good(tmp_path) -> None:
    sample = Path(__file__).parents[2] / "examples/events.jsonl"
    events, rejects, _ = await published(sample.read_bytes(), tmp_path)
    assert (len(events), rejects) == (3, [])


async def test_a_batch_that_fails_ends_it_and_nothing_behind_it_counts_as_done(tmp_path) -> None:
    lines = [json.dumps(EVENT).encode()] * 4000  # more batches than are in flight
    path = tmp_path / "events"
    path.write_bytes(b"\n".join(lines))
    ingest = Ingest(Log(fails=2), form="event", on_reject=lambda _: None)
    with path.open("rb") as file, pytest.raises(StackError):
        await ingest.run(Reader(file).read)
    assert ingest.progress.up_to == 500


async def test_a_batch_is_bounded_in_bytes_too() -> None:
    read, write = os.pipe()
    line = b"{" + b"x" * 300_000 + b"}\n"

    def feed() -> None:
        with os.fdopen(write, "wb") as writing:
            writing.write(line * 40)

    feeding = threading.Thread(target=feed)
    feeding.start()
    with os.fdopen(read, "rb") as reading:
        reader, sizes = Reader(reading), []
        while texts := await reader.read(500):
            sizes.append(sum(map(len, texts)))
    feeding.join()
    assert sum(sizes) == 40 * (len(line) - 1)
    assert max(sizes) < 2**20 + 2 * len(line)


def publish(*arguments: str, cwd, given: bytes = b"", **more) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "dualstream_lab.cli", "publish", *arguments]
    return subprocess.run(command, input=given, capture_output=True, timeout=60, check=False, cwd=cwd, **more)


@pytest.fixture
def there(stack, topic):
    return ["--kafka", stack.kafka_url, "--redis", stack.redis_url, "--topic", topic]


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (b"", 2, "error: standard input has no event: nothing was published"),
        (b"\n \n\n", 2, "error: standard input has no event: nothing was published"),
        (b"[]", 2, "error: standard input has no event: nothing was published"),
        ("{}".encode("utf-16"), 2, "error: standard input is UTF-16, and JSON is UTF-8: convert it first"),
    ],
)
def test_a_file_without_events_is_one_line_of_error(tmp_path, there, given, code, said) -> None:
    done = publish("-", *there, cwd=tmp_path, given=given)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.decode().startswith(said)
    assert done.stderr.count(b"\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "said"),
    [("/dev/null", "/dev/null has no event"), (".", "cannot be read: Is a directory")],
)
def test_what_is_no_file_is_one_line_of_error(dualstream, there, file, said) -> None:
    code, out, err = dualstream("publish", file, *there)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_rejects_on_a_full_disk_are_one_line_and_exit_3(tmp_path, there) -> None:
    good = json.dumps(EVENT).encode() + b"\n"
    done = publish("-", "--rejects", "/dev/full", *there, cwd=tmp_path, given=good * 600 + b"{bad\n" + good)
    said = done.stderr.decode()
    assert done.returncode == 3, said
    assert "Traceback" not in said
    assert "error: line 601 is refused" in said
    assert "/dev/full cannot be written: No space left on device" in said
    assert "go on with --from-line 501" in said
    assert "see them" not in said


def test_rejects_over_the_file_itself_are_refused(tmp_path, there) -> None:
    (tmp_path / "f.jsonl").write_bytes(b"{bad\n")
    done = publish("f.jsonl", "--rejects", "./f.jsonl", *there, cwd=tmp_path)
    assert done.returncode == 2
    assert b"is FILE itself" in done.stderr
    assert (tmp_path / "f.jsonl").read_bytes() == b"{bad\n"


def test_a_closed_standard_input_is_said(tmp_path, there) -> None:
    command = [sys.executable, "-m", "dualstream_lab.cli", "publish", "-", *there]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert b"there is no standard input" in done.stderr


def test_an_array_goes_on_at_an_element_and_counts_them(tmp_path, there) -> None:
    file = tmp_path / "events.json.gz"
    file.write_bytes(gzip.compress(json.dumps([EVENT, {"type": 1}, EVENT, EVENT], indent=1).encode()))
    done = publish("events.json.gz", "--from-line", "2", *there, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith(b"2 events durable in ")
    reject = json.loads((tmp_path / "events.json.gz.rejects.jsonl").read_text())
    assert reject["event"] == 2
    assert json.loads(reject["raw"]) == {"type": 1}
