"""Which brokers a command means: those that it was given, those of the environment, or the local stack."""

from __future__ import annotations

from typing import TypeVar

from dualstream_lab.config import Settings
from dualstream_lab.errors import StackError
from dualstream_lab.stack.state import running_stack

__all__ = ["find_settings"]

S = TypeVar("S", bound=Settings)


def find_settings(kind: type[S] = Settings, **values: object) -> S:  # type: ignore[assignment]
    """Settings with a Kafka URL; where none is given, those of the running local stack.

    Raises ConfigError for a bad value, StackError where there is neither.
    """
    settings = kind.load(**values)
    if settings.kafka_url is not None:
        return settings
    info = running_stack()
    if info is None:
        raise StackError(
            "no Kafka was given and no local stack runs: start one with `dualstream up --detach`, "
            "or give --kafka (DUALSTREAM_KAFKA_URL)"
        )
    local: dict[str, object] = {"kafka_url": info.kafka_url}
    if settings.redis_url is None:
        local["redis_url"] = info.redis_url
    return kind.load(**(values | local))
