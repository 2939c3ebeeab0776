"""A WebSocket that asks for its sources and listens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NoReturn

import aiohttp
import msgspec

from dualstream_lab.subscriber.wire import CONNECT_TIMEOUT, MAX_MESSAGE_BYTES, Dropped, closed, refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from yarl import URL

__all__ = ["listen_ws"]

_CLOSE: Final = 0.5  # s for the other side to answer a close frame
_ENDS: Final = {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED}


async def listen_ws(
    session: aiohttp.ClientSession,
    url: URL,
    headers: Mapping[str, str],
    since: Mapping[str, str],
    silence: float,
    deliver: Callable[[str], Awaitable[None]],
) -> NoReturn:
    """Connect, subscribe to every source of ``since``, and deliver every message until the end: Dropped.

    Raises ConfigError or StreamUnavailable where another try is no use. ``silence``: s without a byte, nor
    an answer to a ping, after which the connection counts as dead.
    """
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            socket = await session.ws_connect(
                url,
                headers=dict(headers),
                heartbeat=silence / 1.5,  # aiohttp waits half of it for the answer
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE),
                max_msg_size=MAX_MESSAGE_BYTES,
            )
    except aiohttp.WSServerHandshakeError as error:
        raise refused(error.status, "") from error
    except (aiohttp.ClientError, OSError) as error:  # time-outs among them
        raise Dropped(str(error) or type(error).__name__) from error
    try:
        for source, place in since.items():
            await socket.send_str(msgspec.json.encode({"subscribe": source, "since": place}).decode())
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            await deliver(message.data)
    except (aiohttp.ClientError, OSError) as error:
        raise Dropped(str(error) or type(error).__name__) from error
    finally:
        await socket.close()
    if message.type in _ENDS:
        raise closed(socket.close_code, str(message.extra or socket.exception() or ""))
    raise Dropped(f"the connection failed: {message.data}")
