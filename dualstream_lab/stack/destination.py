"""Which brokers a command means: those that it was given, those of the environment, or the local stack.

Who only reads, or publishes what somebody wrote, uses any of them (:func:`find_settings`). Load goes nowhere
just because the environment names it (:func:`find_destination`). :func:`with_origins` makes messages name
what was typed: ``--kafka``, or the variable of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.stack.local import LocalStack
from dualstream_lab.stack.state import StackInfo, running_stack

_OPTIONS: Final = {"kafka_url": "--kafka", "redis_url": "--redis"}


def find_settings(**values: object) -> Settings:
    """Load settings with a Kafka URL; where none is given, those of the running local stack.

    Raises ConfigError for a bad value, StackError where there is neither.
    """
    settings = Settings.load(**values)
    if settings.kafka_url is not None:
        return settings
    info = running_stack()
    if info is None:
        raise StackError(
            "no Kafka was given and no local stack runs: start one with `dualstream up --detach`, "
            "or give --kafka (DUALSTREAM_KAFKA_URL)"
        )
    redis_url = settings.redis_url or info.redis_url
    return Settings.load(**(values | {"kafka_url": info.kafka_url, "redis_url": redis_url}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where load goes. ``local``: to a stack of this user's, on this machine. ``name``: whose brokers it is.

    As a text: the brokers, the topic and the channels, without any password.
    """

    settings: Settings
    local: bool
    name: str

    @classmethod
    def of(cls, stack: LocalStack, topic: str | None = None) -> Self:
        """Send load to a stack that was started for it; ``topic``: not to its own topic, but to this."""
        return cls._local(stack, topic or stack.topic, "a local stack of its own")

    @classmethod
    def running(cls, topic: str | None = None) -> Self | None:
        """Send load to the stack that `dualstream up` runs, if it does; ``topic``: not to its own topic."""
        info = running_stack()
        return None if info is None else cls._local(info, topic or info.topic, "the running local stack")

    @classmethod
    def _local(cls, stack: LocalStack | StackInfo, topic: str | None, name: str) -> Self:
        urls = {"kafka_url": stack.kafka_url, "redis_url": stack.redis_url, "topic": topic}
        return cls(settings=Settings.load(**urls), local=True, name=name)

    @property
    def kafka(self) -> str:
        """Kafka's servers, without any password."""
        return _listed(self.settings.kafka_url)

    def agree(self, ask: Callable[[], bool] | None) -> None:
        """Ask, if these may be somebody else's brokers. ConfigError for a "no", or with nobody to ask."""
        if not self.local and ask is None:
            raise ConfigError("these are not the brokers of the local stack: give --yes if load may go there")
        if not self.local and ask is not None and not ask():
            raise ConfigError("nothing was sent")

    def __str__(self) -> str:
        return f"{places(self.settings)} ({self.name})"


def places(settings: Settings) -> str:
    """Name the brokers, the topic and the channels, without any password."""
    announced = "no Redis: nothing is announced"
    if settings.redis_url is not None:
        announced = f"Redis {_listed(settings.redis_url)}, channels {settings.channel_prefix}events:*"
    return f"Kafka {_listed(settings.kafka_url)}, topic {settings.topic}; {announced}"


def find_destination(
    *, kafka: str | None, redis: str | None, topic: str | None, use_env: bool
) -> Destination | None:
    """Find the brokers that were given, or with ``use_env`` those of the environment. None: a stack of its
    own is to be started. Without ``use_env`` nothing in the environment says where load goes.

    Raises ConfigError.
    """
    if kafka is None and not use_env:
        if redis is not None:
            raise ConfigError("--redis without --kafka: give both, or neither for a local stack")
        Settings.load(kafka_url="unused:1", redis_url="redis://unused", topic=topic)  # a topic that can be
        return None
    settings = Settings.load(kafka_url=kafka, redis_url=redis, topic=topic)
    if settings.kafka_url is None:
        raise ConfigError("--use-env: DUALSTREAM_KAFKA_URL is not set")
    if not use_env:
        plain = {"redis_url": redis, "topic": topic or Settings.model_fields["topic"].default}
        settings = settings.model_copy(update=plain)
    running = Destination.running()
    local = running is not None and _within(settings, running.settings)
    name = "the running local stack" if local else "not the local stack"
    return Destination(settings=settings, local=local, name=name)


def _within(settings: Settings, running: Settings) -> bool:
    """Find whether all of these brokers are among the running, however their addresses are written."""
    return all(
        set(_servers(one or "")) <= set(_servers(other or ""))
        for one, other in ((settings.kafka_url, running.kafka_url), (settings.redis_url, running.redis_url))
    )


def _listed(url: str | None) -> str:
    return ", ".join(_servers(url or ""))


def _servers(url: str) -> list[str]:
    """List ``host:port`` of each server, or the path of a socket; nothing of who logs in, or how."""
    scheme, _, rest = url.rpartition("://")
    hosts = re.split(r"[?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if scheme == "unix":
        return [hosts]
    found = [re.sub(r"^localhost:", "127.0.0.1:", host.strip()) for host in hosts.split("/")[0].split(",")]
    return [host for host in found if host]


def with_origins(text: str, arguments: Sequence[str]) -> str:
    """Say a message about a setting of brokers so that whoever gave it, by these arguments or in the
    environment, can act on it; an address that came from the environment is said to.
    """
    for setting, option in _OPTIONS.items():
        variable = f"DUALSTREAM_{setting.upper()}"
        if any(word == option or word.startswith(f"{option}=") for word in arguments):
            text = _renamed(setting, option, text)
        elif _names(text, ambient(setting)):
            text = re.sub(rf"\bcheck {setting}\b", f"the address is from {variable}", text)
            text = _renamed(setting, variable, text)
            if variable not in text:
                text += f" (the address is from {variable})"
        else:
            text = _renamed(setting, f"{option} ({variable})", text)
            text = text.replace(f" ({variable}) ({variable})", f" ({variable})")
    return text


def _renamed(setting: str, name: str, text: str) -> str:
    """Rename a setting, but not within code, where it is a parameter's name."""
    return re.sub(rf"(`[^`]*`)|\b{setting}\b", lambda match: match[1] or name, text)


def ambient(setting: str) -> str:
    """Read a setting from the environment; nothing where it says what cannot be."""
    try:
        return str(getattr(Settings.load(), setting) or "")
    except ConfigError:
        return ""


def _names(text: str, url: str) -> bool:
    """Find whether one of the URL's servers is in the text."""
    return any(server in text for server in re.findall(r"[^\s,@/]+:\d+", url))
