"""What a session tells its client of trouble that it may not know the particulars of."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from dualstream_lab.errors import StoreError, StreamUnavailable
from dualstream_lab.gateway.access import EVERYTHING
from dualstream_lab.gateway.session import Session
from dualstream_lab.http_server import RateLimit
from tests.gateway.serving import until


class FakeConnection:
    """Keeps what it is told."""

    def __init__(self):
        self.told = []

    def send(self, frames, _shared, _source):
        self.told += [json.loads(frame.body) for frame in frames]

    def end(self):
        pass


class FakeEntry:
    """Lets nobody in."""

    def __init__(self, error):
        self.error = error

    async def enter(self, _client, _source, _since):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            StoreError("store /srv/secret/store.db is damaged"),
            "the store of recent events cannot be read now",
        ),
        (StreamUnavailable("kafka-7.internal:9092: log-in refused for app"), "Kafka cannot be asked now"),
    ],
)
async def test_no_file_server_or_user_is_told(error, said, caplog):
    caplog.set_level("INFO", "dualstream_lab.gateway.session")
    connection = FakeConnection()
    settings = SimpleNamespace(max_subscriptions=10)
    sessions = SimpleNamespace(hub=None, entry=FakeEntry(error), rate=RateLimit(0), settings=settings)
    session = Session(sessions, connection, EVERYTHING, "somebody")
    session.check(["repo:o/r"])
    session.subscribe([("repo:o/r", None)])
    await until(lambda: connection.told)
    assert connection.told[0]["error"] == f"{said}; try again"
    assert str(error) in caplog.text
    session.close()
