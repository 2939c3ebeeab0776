"""Redis told to misbehave: settings and rights that are changed, and put back as they were."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar, Final

from dualstream_lab.errors import FaultInert, StreamUnavailable
from dualstream_lab.faults.fault import Fault, Parameter
from dualstream_lab.faults.redis.probe import WRITE, Link, Refused, ask, heard, refused, writes
from dualstream_lab.faults.redis.process import RedisFault

if TYPE_CHECKING:
    from dualstream_lab.faults.fault import Target

__all__ = ["FAULTS"]

_FILL = 32  # places that may have come free since they were counted
_FULL = "max number of clients"
_WAIT = 10.0  # s for a place that comes free


class OutOfMemory(RedisFault):
    """Harmless for what is published: PUBLISH is not denied."""

    name = "redis.oom"
    says = "maxmemory is reached: writes are refused, PUBLISH must go on"

    async def begin(self) -> None:
        """No eviction first: nothing that is kept there may be thrown away."""
        async with Link(self.url) as admin:
            memory, policy = await admin.setting("maxmemory"), await admin.setting("maxmemory-policy")
            self.note(memory=memory, policy=policy)
            await admin.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await admin.ask("CONFIG", "SET", "maxmemory", "1")

    async def bites(self) -> str:
        """A write is refused, a PUBLISH heard."""
        error = await refused(self.url, "maxmemory", *WRITE)
        return f"a write is refused ({error}), and {await heard(self.url)}"

    async def end(self) -> None:
        """Room first, then eviction as before."""
        if self.found:
            await ask(self.url, "CONFIG", "SET", "maxmemory", self.found["memory"])
            await ask(self.url, "CONFIG", "SET", "maxmemory-policy", self.found["policy"])

    async def ended(self) -> str:
        """A write is accepted."""
        return await writes(self.url)


class ReadOnly(RedisFault):
    """The old primary of a failover that its clients have not noticed.

    It follows an address that nobody can have, so that nothing is copied and nothing here is lost.
    """

    name = "redis.readonly"
    says = "Redis becomes a replica of nobody: writes are refused, PUBLISH goes on and says no error"

    async def begin(self) -> None:
        """Only a master: another replica would have to copy everything again."""
        async with Link(self.url) as admin:
            if (role := await admin.info("role")) != "master":
                raise FaultInert(f"this Redis is a {role} already")
            self.note(role=role)
            await admin.ask("REPLICAOF", "127.0.0.1", "0")

    async def bites(self) -> str:
        """Its role, a refused write, and a PUBLISH without an error."""
        async with Link(self.url) as link:
            role = await link.info("role")
        if role == "master":
            raise FaultInert("its role is still master")
        error = await refused(self.url, "read only", *WRITE)
        return f"its role is {role}, a write is refused ({error}), and {await heard(self.url)}"

    async def end(self) -> None:
        """Master again."""
        if self.found:
            await ask(self.url, "REPLICAOF", "NO", "ONE")

    async def ended(self) -> str:
        """A write is accepted."""
        return await writes(self.url)


class OutputBuffer(RedisFault):
    """Subscribers are cut off for being slow, when they are hardly slow."""

    name = "redis.output-buffer"
    says = "the output buffer of subscribers is tiny: who has more before him is cut off"
    parameters: ClassVar = (Parameter("limit_kib", 8, 1, 1024, "what a subscriber may have before him"),)
    _SETTING = "client-output-buffer-limit"

    @property
    def _limit(self) -> int:
        return round(self.value["limit_kib"] * 1024)

    @property
    def _too_much(self) -> int:
        # The first 16 KiB of what waits for a client do not count.
        return self._limit + 32 * 1024

    async def begin(self) -> None:
        """Only the limit of subscribers."""
        async with Link(self.url) as admin:
            self.note(limit=await admin.setting(self._SETTING))
            await admin.ask("CONFIG", "SET", self._SETTING, f"pubsub {self._limit} {self._limit} 0")

    async def bites(self) -> str:
        """A message above the limit cuts its subscriber off."""
        try:
            inert = await heard(self.url, size=self._too_much)
        except StreamUnavailable as error:
            if isinstance(error, Refused) or isinstance(error.__cause__, TimeoutError):
                raise
            return f"a message of {self._too_much:,} B cuts its subscriber off ({error})"
        raise FaultInert(f"a message of {self._too_much:,} B cuts nobody off: {inert}")

    async def end(self) -> None:
        """As it was."""
        if self.found:
            await ask(self.url, "CONFIG", "SET", self._SETTING, self.found["limit"])

    async def ended(self) -> str:
        """The same message is heard."""
        return f"{await heard(self.url, size=self._too_much)}, of {self._too_much:,} B"


class MaxClients(RedisFault):
    """Who is connected stays; who has to connect anew cannot.

    There are as many places as connections, so that those of a process that crashed leave room to undo it.
    """

    name = "redis.maxclients"
    says = "no more connections are accepted (maxclients); those that are there stay"

    def __init__(self, target: Target, **parameters: float) -> None:
        super().__init__(target, **parameters)
        self._inside: list[Link] = []

    async def begin(self) -> None:
        """The connection that does it stays, to undo it."""
        admin = self._enter()
        self.note(maxclients=await admin.setting("maxclients"))
        await admin.ask("CONFIG", "SET", "maxclients", await admin.info("connected_clients"))

    async def bites(self) -> str:
        """A new connection is refused, once what has come free meanwhile is taken."""
        for _ in range(_FILL):
            try:
                await self._enter().ask("PING")
            except StreamUnavailable as error:
                if _FULL in str(error):
                    return f"a new connection is refused ({error})"
                raise
        raise FaultInert(f"{_FILL} new connections are accepted")

    async def end(self) -> None:
        """As it was. Where the begin was cut short, its connection is gone, and Redis may not know it yet."""
        for link in self._inside[1:]:
            await link.close()
        if self.found:
            admin = self._inside[0] if self._inside else self._enter()
            deadline = time.monotonic() + _WAIT
            while not await self._restored(admin):
                if time.monotonic() > deadline:
                    raise StreamUnavailable(f"Redis has had no room for {_WAIT:g} s to undo {self.name}")
                await asyncio.sleep(0.02)
        for link in self._inside[:1]:
            await link.close()

    async def _restored(self, admin: Link) -> bool:
        try:
            await admin.ask("CONFIG", "SET", "maxclients", self.found["maxclients"])
        except StreamUnavailable as error:
            if _FULL in str(error):
                return False
            raise
        return True

    def _enter(self) -> Link:
        self._inside.append(Link(self.url))
        return self._inside[-1]


class NoPermission(RedisFault):
    """Refused at each call, on connections that work."""

    name = "redis.no-permission"
    says = "the user of this Redis may not publish (ACL): PUBLISH and EVALSHA are refused"

    async def begin(self) -> None:
        """What the user may do is remembered as a whole."""
        async with Link(self.url) as admin:
            user = await admin.ask("ACL", "WHOAMI")
            lines = [line.split() for line in await admin.ask("ACL", "LIST")]
            self.note(user=user, rules=next(line[2:] for line in lines if line[1] == user))
            await admin.ask("ACL", "SETUSER", user, "-publish", "-spublish", "-eval", "-evalsha")

    async def bites(self) -> str:
        """Both are refused."""
        error = await refused(self.url, "permission", "PUBLISH", "x", "x")
        await refused(self.url, "permission", "EVALSHA", "0" * 40, 0)
        return f"PUBLISH and EVALSHA are refused ({error})"

    async def end(self) -> None:
        """As it was, in one step."""
        if self.found:
            await ask(self.url, "ACL", "SETUSER", self.found["user"], "reset", *self.found["rules"])


FAULTS: Final[tuple[type[Fault], ...]] = (OutOfMemory, ReadOnly, OutputBuffer, MaxClients, NoPermission)
