"""The local stack: a real Kafka and a real Valkey as child processes, without Docker or root."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TypeVar

from dualstream_lab.errors import ConfigError, StackError
from dualstream_lab.stack.directory import kept_directory, temporary_directory
from dualstream_lab.stack.jars import class_path
from dualstream_lab.stack.kafka import BrokerPorts, broker_process, new_id, port_taken
from dualstream_lab.stack.ports import HOST, check_port, free_ports
from dualstream_lab.stack.process import ManagedProcess
from dualstream_lab.stack.runtime import Runtime, find_java
from dualstream_lab.stack.settings import PARTITIONS, TOPIC, TlsMaterial, replication, topic_settings
from dualstream_lab.stack.valkey import find_redis, redis_process, tls_capable_redis
from dualstream_lab.stack.warm import warmed
from dualstream_lab.units import quantity

T = TypeVar("T")
_ATTEMPTS = 3


class LocalStack:
    """A Kafka cluster and a Redis on free ports of 127.0.0.1, with a topic to publish to.

    ``brokers``: 1, or 3 with every partition on all of them. ``directory``: where data and logs are
    kept; by default a temporary one, removed by :meth:`stop`; ``in_memory``: where no disk delays the
    brokers, if the system has such a place with room. ``progress`` is told what happens, a line at a time.
    ``kafka_settings`` and ``valkey_settings`` (arguments such as ``("--maxclients", "9")``) override.
    ``tls`` adds listeners with TLS and a password. ``redis=False`` leaves Redis out. ``kafka_port`` (with
    three brokers, the first of three) and ``redis_port`` fix ports. ``topic=None`` creates none. ``topics``:
    the partitions of others to create, or of that one; those of a kept directory stay as they are.

    Everything dies with this process, even if that is killed. One thread at a time.
    """

    def __init__(
        self, *, brokers: int = 1, directory: Path | None = None, in_memory: bool = False,
        progress: Callable[[str], None] | None = None, kafka_settings: Mapping[str, str] = {},
        valkey_settings: Sequence[str] = (), redis: bool = True, tls: TlsMaterial | None = None,
        topic: str | None = TOPIC, topics: Mapping[str, int] = {}, kafka_port: int | None = None,
        redis_port: int | None = None,
    ) -> None:  # fmt: skip
        if brokers not in {1, 3}:
            raise ConfigError(f"brokers must be 1 or 3 (is {brokers!r})")
        self.topic = topic
        self._topics = dict(topics)
        self._count = brokers
        self._given, self._in_memory = directory, in_memory
        self._progress = progress or (lambda _line: None)
        self._kafka_settings = dict(kafka_settings)
        self._valkey_settings = tuple(valkey_settings)
        self._with_redis = redis
        self._tls = tls
        self._fixed = (kafka_port, redis_port)
        self._directory: Path | None = None
        self._ports: list[BrokerPorts] = []
        self._redis_ports = (0, 0)
        self._brokers: tuple[ManagedProcess, ...] = ()
        self._redis: ManagedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def directory(self) -> Path:
        """The directory of data and logs."""
        if self._directory is None:
            raise StackError("the stack is not started; call start() first")
        return self._directory

    @property
    def brokers(self) -> tuple[ManagedProcess, ...]:
        """The brokers' processes, that of broker 1 first."""
        _ = self.directory
        return self._brokers

    @property
    def redis(self) -> ManagedProcess:
        """The Redis (Valkey) server's process."""
        _ = self.directory
        if self._redis is None:
            raise StackError("this stack has no Redis; start it with redis=True")
        return self._redis

    @property
    def kafka_url(self) -> str:
        """The address of every broker, ``127.0.0.1:port[,…]``."""
        _ = self.directory
        return ",".join(f"{HOST}:{ports.client}" for ports in self._ports)

    @property
    def redis_url(self) -> str:
        """The URL of Redis, ``redis://127.0.0.1:port``."""
        _ = self.redis
        return f"redis://{HOST}:{self._redis_ports[0]}"

    @property
    def kafka_tls_url(self) -> str:
        """The URL of the listeners with TLS and a password (SASL PLAIN), if the stack was given ``tls``."""
        _ = self.directory
        if self._tls is None:
            raise StackError("this stack has no TLS listener; start it with tls=")
        servers = ",".join(f"{HOST}:{ports.tls}" for ports in self._ports)
        return f"kafkas://{self._tls.user}:{self._tls.password}@{servers}?ssl_cafile={self._tls.ca}"

    @property
    def rediss_url(self) -> str:
        """The URL of the listener with TLS and an ACL user, given ``tls`` and a Redis built with TLS."""
        _ = self.redis
        if self._tls is None or not self._redis_ports[1]:
            raise StackError("no TLS Redis: give tls=, and put a redis-server built with TLS on PATH")
        user = f"{self._tls.user}:{self._tls.password}"
        return f"rediss://{user}@{HOST}:{self._redis_ports[1]}?ssl_ca_certs={self._tls.ca}"

    def environment(self) -> dict[str, str]:
        """The ``DUALSTREAM_*`` variables that point a program to this stack."""
        values = {"DUALSTREAM_KAFKA_URL": self.kafka_url}
        if self._redis is not None:
            values["DUALSTREAM_REDIS_URL"] = self.redis_url
        if self.topic is not None:
            values["DUALSTREAM_TOPIC"] = self.topic
        return values

    def start(self) -> None:
        """Start everything and wait until it serves. Nothing if it is started.

        Raises StackError, with nothing left running.
        """
        if self._directory is not None:
            return
        binary = None
        if self._with_redis:
            binary = (tls_capable_redis() if self._tls is not None else None) or find_redis()
        runtime = warmed(Runtime(java=find_java(), jars=tuple(class_path(self._progress))), self._progress)
        attempts = 1 if any(self._fixed) else _ATTEMPTS
        while self._directory is None:
            attempts -= 1
            try:
                self._start(runtime, binary)
            except BaseException as error:
                self.stop()
                # Another program may have taken a port between the choice and the start.
                if not (attempts and isinstance(error, StackError) and port_taken(error)):
                    raise

    def stop(self) -> None:
        """End every process, within seconds, and remove a temporary directory. Nothing if not started."""
        processes = self._processes
        if self._given is not None:
            # The data are kept, so let all end orderly, side by side.
            for process in processes:
                process.resume()
                process.terminate()
            for process in processes:
                process.stop()
        for process in processes:
            process.kill()
        if self._given is None and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory, self._brokers, self._redis = None, (), None

    def create_topic(
        self, name: str, *, partitions: int = PARTITIONS, settings: Mapping[str, str] = {}
    ) -> None:
        """Create a topic with min(3, brokers) copies; with three, two must acknowledge. Blocks.

        Raises StackError if it exists already or cannot be created within 15 s.
        """
        _ = self.directory
        configs = topic_settings(self._count) | dict(settings)
        _in_thread(_create_topic(self.kafka_url, name, partitions, replication(self._count), configs))

    @property
    def _processes(self) -> list[ManagedProcess]:
        return [*self._brokers, *([self._redis] if self._redis is not None else [])]

    def _start(self, runtime: Runtime, binary: Path | None) -> None:
        if self._given is None:
            self._directory = remove = temporary_directory(in_memory=self._in_memory)
        else:
            self._directory, remove = kept_directory(self._given, self._count), None
        self._choose_ports(tls_redis=self._tls is not None and binary == tls_capable_redis())
        cluster_id = self._cluster_id()
        self._progress(f"starting Kafka ({quantity(self._count, 'broker')}) and Redis …")
        if binary is not None:
            port, tls_port = self._redis_ports
            self._redis = redis_process(
                binary, port=port, directory=self._directory / "redis", remove=remove,
                settings=self._valkey_settings, tls=self._tls if tls_port else None, tls_port=tls_port,
            )  # fmt: skip
            self._redis.launch()
        for node in range(1, self._count + 1):
            process = broker_process(
                node, ports=self._ports, cluster_id=cluster_id, runtime=runtime,
                directory=self._directory / f"kafka-{node}", remove=remove, settings=self._kafka_settings,
                tls=self._tls,
            )  # fmt: skip
            self._brokers = (*self._brokers, process)
            process.launch()
        for process in self._processes:
            process.wait_ready()
        own = {} if self.topic is None else {self.topic: PARTITIONS}
        for name, partitions in (own | self._topics).items():
            try:
                self.create_topic(name, partitions=partitions)
            except _TopicExists:
                if name in self._topics:
                    self._progress(f"topic {name} is there already, and stays as it is")

    def _cluster_id(self) -> str:
        """Read the kept cluster's id, so that a broker lost from a kept directory is made anew in it."""
        for meta in sorted(self.directory.glob("kafka-*/data/meta.properties")):
            for line in meta.read_text(encoding="utf-8").splitlines():
                if line.startswith("cluster.id="):
                    return line.partition("=")[2].replace("\\", "")
        return new_id()

    def _choose_ports(self, *, tls_redis: bool) -> None:
        kafka, redis = self._fixed
        free = iter(free_ports(3 * self._count + 2))
        self._ports = [
            BrokerPorts(
                client=next(free) if kafka is None else check_port(kafka + i, "--kafka-port"),
                controller=next(free),
                tls=next(free) if self._tls is not None else 0,
            )
            for i in range(self._count)
        ]
        self._redis_ports = (
            next(free) if redis is None else check_port(redis, "--redis-port"),
            next(free) if tls_redis else 0,
        )


class _TopicExists(StackError):
    """The topic is there already."""


async def _create_topic(
    servers: str, name: str, partitions: int, replication_factor: int, configs: dict[str, str]
) -> None:
    from aiokafka.admin import AIOKafkaAdminClient  # noqa: PLC0415  (slow to import)
    from aiokafka.errors import KafkaError  # noqa: PLC0415

    from dualstream_lab.kafka_log import topics  # noqa: PLC0415

    client = AIOKafkaAdminClient(bootstrap_servers=servers, request_timeout_ms=10_000)
    try:
        async with asyncio.timeout(15):
            await client.start()
            await topics.create_topic(
                client, name, partitions=partitions, replication_factor=replication_factor, settings=configs
            )
    except ConfigError as error:
        kind = _TopicExists if isinstance(error, topics.TopicExists) else StackError
        raise kind(str(error)) from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise StackError(f"topic {name!r} could not be created: {error or 'timed out'}") from error
    finally:
        await client.close()


def _in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop and a thread of its own: the caller may be in a loop already."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            future.set_exception(error)

    # A daemon: who presses Ctrl-C does not wait for it. An executor's thread is waited for at the exit.
    threading.Thread(target=run, name="dualstream-stack-admin", daemon=True).start()
    return future.result()
