"""Redis made hard to use by commands: its settings, rights, role, scripts and connections."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, Final

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.evidence import until
from dualstream_lab.faults.fault import Fault, Parameter, RepeatedFault, Target
from dualstream_lab.faults.redis.probe import WRITE, Link, RedisFault, Refused, ask, delivers, refused

_FILL = 32  # connections that may have ended since they were counted
_FULL = "max number of clients"
_WAIT = 10.0  # s for a connection to be accepted
_SLACK = 2.0  # s that a machine may be busy with other things
_ENDLESS = "for i = 1, 1e11 do end"  # some minutes, should nobody be there to end it
_LONGEST = 3600.0  # s
_KILLS = 500  # tries


class _Configured(RedisFault):
    """Settings of Redis are changed, one after the other, and put back in the opposite order."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, str]: ...

    async def begin(self) -> None:
        async with Link(self.url) as admin:
            self.note({name: await admin.setting(name) for name in self.settings})
            for name, value in self.settings.items():
                await admin.ask("CONFIG", "SET", name, value)

    async def end(self) -> None:
        for name, value in reversed(self.original.items()):
            await ask(self.url, "CONFIG", "SET", name, value)


class _OutOfMemory(_Configured):
    name = "redis.oom"
    says = "maxmemory is reached: writes are refused, PUBLISH must go on"
    # no eviction first: nothing that is kept there may be thrown away
    settings: ClassVar = {"maxmemory-policy": "noeviction", "maxmemory": "1"}

    async def verify_active(self) -> str:
        error = await refused(self.url, "maxmemory", *WRITE)
        return f"a write is refused ({error}), and {await delivers(self.url)}"

    async def verify_ended(self) -> str:
        await ask(self.url, *WRITE)
        return "a write is accepted"


class _ReadOnly(RedisFault):
    """The old primary of a failover that its clients have not noticed.

    It follows an address that nobody can have, so that nothing is copied and nothing here is lost.
    """

    name = "redis.readonly"
    says = "Redis becomes a replica of nobody: writes are refused, PUBLISH goes on and says no error"

    async def begin(self) -> None:
        """Make it a replica. Only a master: a replica would have to copy everything again afterwards."""
        async with Link(self.url) as admin:
            if (role := await admin.info("role")) != "master":
                raise FaultInert(f"this Redis is a {role} already")
            self.note({"role": role})
            await admin.ask("REPLICAOF", "127.0.0.1", "0")

    async def verify_active(self) -> str:
        async with Link(self.url) as link:
            role = await link.info("role")
        if role == "master":
            raise FaultInert("its role is still master")
        error = await refused(self.url, "read only", *WRITE)
        return f"its role is {role}, a write is refused ({error}), and {await delivers(self.url)}"

    async def end(self) -> None:
        if self.original:
            await ask(self.url, "REPLICAOF", "NO", "ONE")

    async def verify_ended(self) -> str:
        await ask(self.url, *WRITE)
        return "a write is accepted"


class _OutputBuffer(_Configured):
    name = "redis.output-buffer"
    says = "the output buffer of subscribers is tiny: who has more before him is cut off"
    parameters: ClassVar = (Parameter("limit_kib", 8, 1, 1024, "what a subscriber may have before him"),)

    @property
    def _limit(self) -> int:
        return round(self.value["limit_kib"] * 1024)

    @property
    def _too_much(self) -> int:
        # The first 16 KiB of what waits for a client do not count.
        return self._limit + 32 * 1024

    @property
    def settings(self) -> Mapping[str, str]:
        return {"client-output-buffer-limit": f"pubsub {self._limit} {self._limit} 0"}

    async def verify_active(self) -> str:
        try:
            inert = await delivers(self.url, size=self._too_much)
        except StreamUnavailable as error:
            if isinstance(error, Refused) or isinstance(error.__cause__, TimeoutError):
                raise
            return f"a message of {self._too_much:,} B cuts its subscriber off ({error})"
        raise FaultInert(f"a message of {self._too_much:,} B cuts nobody off: {inert}")

    async def verify_ended(self) -> str:
        return f"{await delivers(self.url, size=self._too_much)}, of {self._too_much:,} B"


class _MaxClients(RedisFault):
    """No client can connect anew; those that are connected stay.

    As many may connect as are connected, so that those of a process that crashed leave room to undo it.
    """

    name = "redis.maxclients"
    says = "no more connections are accepted (maxclients); those that are there stay"

    def __init__(self, target: Target, **parameters: float) -> None:
        super().__init__(target, **parameters)
        self._links: list[Link] = []

    def _connect(self) -> Link:
        self._links.append(Link(self.url))
        return self._links[-1]

    async def begin(self) -> None:
        """Allow no more clients than there are. The connection that does it stays, to undo it."""
        admin = self._connect()
        self.note({"maxclients": await admin.setting("maxclients")})
        await admin.ask("CONFIG", "SET", "maxclients", await admin.info("connected_clients"))

    async def verify_active(self) -> str:
        """See a new connection refused, once there are as many as there were."""
        for _ in range(_FILL):
            try:
                await self._connect().ask("PING")
            except StreamUnavailable as error:
                if _FULL in str(error):
                    return f"a new connection is refused ({error})"
                raise
        raise FaultInert(f"{_FILL} new connections are accepted")

    async def end(self) -> None:
        """Allow as many as before, once there is room: Redis may not know yet that a connection is gone."""
        for link in self._links[1:]:
            await link.close()
        if self.original:
            admin = self._links[0] if self._links else self._connect()

            async def has_no_room() -> str:
                try:
                    await admin.ask("CONFIG", "SET", "maxclients", self.original["maxclients"])
                except StreamUnavailable as error:
                    if _FULL in str(error):
                        return f"Redis has had no room for {_WAIT:g} s to undo {self.name}"
                    raise
                return ""

            await until(has_no_room, _WAIT)
        for link in self._links[:1]:
            await link.close()


class _NoPermission(RedisFault):
    name = "redis.no-permission"
    says = "the user of this Redis may not publish (ACL): PUBLISH and EVALSHA are refused"

    async def begin(self) -> None:
        """Take the rights away; all that the user may do is remembered."""
        async with Link(self.url) as admin:
            user = await admin.ask("ACL", "WHOAMI")
            lines = [line.split() for line in await admin.ask("ACL", "LIST")]
            self.note({"user": user, "rules": next(line[2:] for line in lines if line[1] == user)})
            await admin.ask("ACL", "SETUSER", user, "-publish", "-spublish", "-eval", "-evalsha")

    async def verify_active(self) -> str:
        error = await refused(self.url, "permission", "PUBLISH", "x", "x")
        await refused(self.url, "permission", "EVALSHA", "0" * 40, 0)
        return f"PUBLISH and EVALSHA are refused ({error})"

    async def end(self) -> None:
        if self.original:
            await ask(self.url, "ACL", "SETUSER", self.original["user"], "reset", *self.original["rules"])


class _Repeated(RepeatedFault, RedisFault):
    """A fault that sends commands again and again, on a connection that is kept."""

    every = "every_ms"
    parameters: ClassVar = (Parameter("every_ms", 200, 10, 60_000, "so often"),)
    commands: ClassVar[tuple[str, ...]]
    kept: ClassVar[str]
    lost: ClassVar[str]

    async def begin(self) -> None:
        self._admin = Link(self.url)
        await super().begin()

    async def once(self) -> None:
        for command in self.commands:
            await self._admin.ask(*command.split())

    async def end(self) -> None:
        try:
            await super().end()
        finally:
            if self._task is not None:
                await self._admin.close()

    @abstractmethod
    async def losses(self, within: float) -> Sequence[float | None]:
        """Wait ``within`` s for losses: after how many s each came, None for what stays."""

    async def verify_active(self) -> str:
        within = self.pause + _SLACK
        if None in (losses := await self.losses(within)):
            raise FaultInert(f"{self.kept} for {within:g} s")
        return self._lost(losses)

    async def verify_ended(self) -> str:
        within = 2 * self.pause
        if any(losses := await self.losses(within)):
            raise FaultInert(self._lost(losses))
        return f"{self.kept} for {within:g} s"

    def _lost(self, losses: Sequence[float | None]) -> str:
        return f"{self.lost} after {' and '.join(f'{seconds * 1e3:.0f}' for seconds in losses if seconds)} ms"


class _KillClients(_Repeated):
    name = "redis.kill-clients"
    says = "every connection is closed by Redis, again and again (CLIENT KILL)"
    commands = ("CLIENT KILL TYPE pubsub SKIPME yes", "CLIENT KILL TYPE normal SKIPME yes")
    kept, lost = "connections stay", "a subscriber and another client are cut off"

    async def losses(self, within: float) -> Sequence[float | None]:
        commands = (("SUBSCRIBE", "dualstream-fault"), ("PING",))
        return await asyncio.gather(*(self._lifetime(command, within) for command in commands))

    async def _lifetime(self, command: Sequence[str], within: float) -> float | None:
        """Send this command and then read; after how many s the connection is closed, None if it stays."""
        began = time.perf_counter()
        try:
            async with Link(self.url) as link:
                await link.ask(*command)
                while (left := began + within - time.perf_counter()) > 0:
                    await link.ask(timeout=left)
        except StreamUnavailable as error:
            if not isinstance(error.__cause__, TimeoutError):
                return time.perf_counter() - began
        return None


class _ScriptFlush(_Repeated):
    name = "redis.script-flush"
    says = "loaded scripts are forgotten, again and again (SCRIPT FLUSH)"
    commands = ("SCRIPT FLUSH SYNC",)
    kept, lost = "a loaded script is there", "a loaded script is forgotten"

    async def losses(self, within: float) -> Sequence[float | None]:
        began = time.perf_counter()
        async with Link(self.url) as link:
            name = await link.ask("SCRIPT", "LOAD", "return 1")
            while (seconds := time.perf_counter() - began) < within:
                try:
                    await link.ask("EVALSHA", name, 0)
                except Refused:
                    return [seconds]
                await asyncio.sleep(0.01)
        return [None]


class _Busy(_Configured):
    name = "redis.busy"
    says = "a script that does not end: no answer at first, then BUSY (SCRIPT KILL ends it)"
    parameters: ClassVar = (
        Parameter("mute_ms", 500, 10, 60_000, "before it says BUSY (busy-reply-threshold)"),
    )
    _script: asyncio.Task[None] | None = None

    @property
    def settings(self) -> Mapping[str, str]:
        """The threshold, by the name that all versions know."""
        return {"lua-time-limit": str(round(self.value["mute_ms"]))}

    async def begin(self) -> None:
        """Set the threshold, then start a script that ends by itself should nobody be there to kill it."""
        await super().begin()
        self._script = asyncio.create_task(self._run_script())
        with suppress(StreamUnavailable):
            while not self._script.done():
                await ask(self.url, "PING", timeout=0.05)

    async def _run_script(self) -> None:
        with suppress(StreamUnavailable):  # killed
            await ask(self.url, "EVAL", _ENDLESS, 0, timeout=_LONGEST)

    async def verify_active(self) -> str:
        began, timeout = time.perf_counter(), self.value["mute_ms"] / 1e3 + _SLACK
        error = (await refused(self.url, "BUSY", "PING", timeout=timeout)).partition(".")[0]
        return f"PING is refused ({error}) after {(time.perf_counter() - began) * 1e3:.0f} ms"

    async def end(self) -> None:
        """Kill the script, also one that only just arrives, then put the setting back."""
        if not self.original:
            return
        for _ in range(_KILLS):
            try:
                await ask(self.url, "SCRIPT", "KILL", timeout=self.value["mute_ms"] / 1e3 + _SLACK)
            except Refused:  # NOTBUSY; one that was told to end still runs for a moment
                if self._script is None or self._script.done():
                    break
            await asyncio.sleep(0.02)
        await super().end()


FAULTS: Final[tuple[type[Fault], ...]] = (
    _OutOfMemory, _ReadOnly, _OutputBuffer, _MaxClients, _NoPermission, _KillClients, _ScriptFlush, _Busy
)  # fmt: skip
