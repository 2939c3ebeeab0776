"""Opens what may be broken: the brokers, and the proxies that some faults need before them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dualstream_lab.errors import ConfigError, FaultInert
from dualstream_lab.faults.fault import Target
from dualstream_lab.faults.journal import left_behind
from dualstream_lab.faults.proxy.proxy import KafkaProxy, Proxy
from dualstream_lab.faults.spec import fault_named
from dualstream_lab.tasks import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from dualstream_lab.config import Settings
    from dualstream_lab.stack import LocalStack

__all__ = ["brokers_needed", "check_suits", "open_target"]


def brokers_needed(names: Iterable[str]) -> int:
    """What the cluster must have at least."""
    return max((fault_named(name).brokers for name in names), default=1)


def check_suits(names: Iterable[str], *, local: bool, owned: bool) -> None:
    """Whether all of them can be done. ``local``: on the local stack; ``owned``: else, may we administer?

    Raises ConfigError that names the fault and says what it needs.
    """
    for kind in map(fault_named, names):
        if kind.needs_stack and not local:
            raise ConfigError(
                f"{kind.name}: such faults need the local stack, whose processes are the run's own: leave "
                "--kafka, --redis and --use-env out"
            )
        if not (local or owned or kind.needs_proxy):
            raise ConfigError(
                f"{kind.name}: changes brokers that are not of the local stack; if nobody else needs them, "
                "say so: dualstream chaos … --target-is-mine"
            )


@asynccontextmanager
async def open_target(
    settings: Settings, names: Iterable[str], *, stack: LocalStack | None = None, owned: bool = False
) -> AsyncIterator[Target]:
    """The brokers of ``settings``, which are those of ``stack`` if it is given, ready for these faults.

    Raises ConfigError where one of them cannot be done there, StackError where a proxy cannot be started,
    FaultInert where something is still broken that a crash has left.
    """
    names = list(names)
    kinds = [fault_named(name) for name in names]
    check_suits(names, local=stack is not None, owned=owned)
    if stack is not None and (need := brokers_needed(names)) > len(stack.brokers):
        raise ConfigError(f"{', '.join(names)}: needs {need} brokers (the stack has {len(stack.brokers)})")
    if settings.redis_url is None and any(kind.breaks == "redis" for kind in kinds):
        raise ConfigError(f"{', '.join(names)}: needs a Redis, and none was given")
    if stack is None and kinds and (left := left_behind()):
        raise FaultInert(f"{left[0].what} of a run that crashed is not undone: dualstream chaos --mend")
    target = Target(direct=settings, settings=settings, stack=stack, owned=owned)
    through = {kind.breaks for kind in kinds if kind.needs_proxy}
    async with AsyncExitStack() as exits:
        if "redis" in through:
            parts = urlsplit(settings.redis_url or "")
            if parts.scheme != "redis":
                raise ConfigError(
                    f"redis_url: a fault proxy needs redis:// ({parts.scheme}:// cannot pass one)"
                )
            redis = Proxy((parts.hostname or "", parts.port or 6379))
            await _put_before(target, "redis", redis, exits)
            user, at, _ = parts.netloc.rpartition("@")
            host, port = redis.address
            url = parts._replace(netloc=f"{user}{at}{host}:{port}").geturl()
            target.settings = target.settings.model_copy(update={"redis_url": url})
        if "kafka" in through:
            kafka = KafkaProxy(settings.kafka_url or "")
            await _put_before(target, "kafka", kafka, exits)
            target.settings = target.settings.model_copy(update={"kafka_url": kafka.kafka_url})
        yield target


async def _put_before(target: Target, broker: str, proxy: Proxy, exits: AsyncExitStack) -> None:
    exits.push_async_callback(in_thread, proxy.stop)
    await in_thread(proxy.start)
    target.proxies[broker] = proxy
