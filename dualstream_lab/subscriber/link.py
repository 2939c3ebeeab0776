"""The task of a Subscriber: it stays connected, by a WebSocket or by server-sent events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Literal, NoReturn

import aiohttp
import msgspec

from dualstream_lab.errors import StreamUnavailable
from dualstream_lab.subscriber import wire
from dualstream_lab.subscriber.api import Api
from dualstream_lab.subscriber.receiver import Receiver, TooFarBehind

if TYPE_CHECKING:
    from yarl import URL

    Deliver = Callable[[str], Awaitable[None]]
    Texts = Mapping[str, str]

log = logging.getLogger(__name__)

Transport = Literal["ws", "sse"]

_CLOSE: Final = 0.5  # s for the other side to answer a close frame
_ENDS: Final = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED}
_STEADY: Final = 10.0  # s after which a connection's end is the first failure again


async def stay_connected(
    api: Api, receiver: Receiver, *, transport: Transport, silence: float, give_up: float | None
) -> NoReturn:
    """Connect, let ``receiver`` understand what comes, and connect again, until cancelled.

    Raises ConfigError or StreamUnavailable when another try is no use.
    """
    loop = asyncio.get_running_loop()
    failures, renew = 0, False
    while True:
        began = loop.time()
        try:
            await _connection(api, receiver, transport, silence, renew=renew)
        except wire.TokenRefused as error:
            # One that was good until now has expired; a new one that is refused is refused for good.
            if not (api.renews and receiver.welcomed):
                raise
            renew, why = True, str(error)
            receiver.welcomed = False
        except wire.Dropped as error:
            renew, why = False, str(error)
        receiver.away()
        api.stats.drops += 1
        now = loop.time()
        if now - began > _STEADY:
            failures = 0
        if failures == 0:
            log.warning("%s: %s. Connecting again", api.base, why)
        wait = wire.pause(failures)
        failures += 1
        if give_up is not None:
            left = receiver.received_at + give_up - now
            if left <= 0:
                raise StreamUnavailable(f"{api.base} is away for {give_up:g} s: {why}")
            wait = min(wait, left)
        await asyncio.sleep(wait)


async def _connection(
    api: Api, receiver: Receiver, transport: Transport, silence: float, *, renew: bool
) -> NoReturn:
    headers = await api.headers(renew=renew)
    api.stats.connections += 1
    listen = listen_ws if transport == "ws" else listen_sse
    while True:
        try:
            since, deliver = receiver.ask(), receiver.deliver
            await listen(api.session, api.base / transport, headers, since, silence, deliver)
        except TooFarBehind as error:
            receiver.away()
            await receiver.read_pages(error.source, api)


async def listen_ws(
    session: aiohttp.ClientSession, url: URL, headers: Texts, since: Texts, silence: float, deliver: Deliver
) -> NoReturn:
    """Connect, subscribe to every source of ``since``, and deliver every message until the end: Dropped.

    Raises ConfigError or StreamUnavailable where another try is no use. ``silence``: s without a byte, nor
    an answer to a ping, after which the connection counts as dead.
    """
    try:
        async with asyncio.timeout(wire.CONNECT_TIMEOUT):
            socket = await session.ws_connect(
                url,
                headers=dict(headers),
                heartbeat=silence / 1.5,  # aiohttp waits half of it for the answer
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE),
                max_msg_size=wire.MAX_MESSAGE_BYTES,
            )
    except aiohttp.WSServerHandshakeError as error:
        raise wire.refused(error.status, "") from error
    except (aiohttp.ClientError, OSError) as error:  # time-outs among them
        raise wire.Dropped(str(error) or type(error).__name__) from error
    try:
        for source, place in since.items():
            await socket.send_str(msgspec.json.encode({"subscribe": source, "since": place}).decode())
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            await deliver(message.data)
    except (aiohttp.ClientError, OSError) as error:
        raise wire.Dropped(str(error) or type(error).__name__) from error
    finally:
        await socket.close()
    if message.type in _ENDS:
        raise wire.closed(socket.close_code, str(message.extra or socket.exception() or ""))
    raise wire.Dropped(f"the connection failed: {message.data}")


async def listen_sse(
    session: aiohttp.ClientSession, url: URL, headers: Texts, since: Texts, silence: float, deliver: Deliver
) -> NoReturn:
    """Connect for every source of ``since``, and deliver every message until the end: Dropped.

    Raises ConfigError. ``silence``: s without a byte after which the connection counts as dead; while
    ``deliver`` waits, nothing is read, and nothing is expected.
    """
    timeout = aiohttp.ClientTimeout(total=None, connect=wire.CONNECT_TIMEOUT, sock_read=silence)
    sources, places = [("source", source) for source in since], ",".join(since.values())  # in one order
    asked = {**headers, "Accept": "text/event-stream", "Last-Event-ID": places}
    try:
        async with session.get(url.with_query(sources), headers=asked, timeout=timeout) as answer:
            if answer.status != 200 or answer.content_type != "text/event-stream":
                raise wire.refused(answer.status, (await answer.content.read(500)).decode(errors="replace"))
            parser = wire.SseParser()
            while chunk := await answer.content.readany():
                for event in parser.feed(chunk):
                    await deliver(event.data)
    except (aiohttp.ClientError, OSError) as error:  # time-outs among them
        raise wire.Dropped(str(error) or type(error).__name__) from error
    raise wire.Dropped("the gateway ended the stream")
