"""The keys that an issuer of tokens publishes, as they are now."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final

import jwt

from dualstream_lab.errors import DualStreamError

if TYPE_CHECKING:
    from jwt import PyJWK

log = logging.getLogger(__name__)

_ALGORITHMS: Final = {f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)} | {"EdDSA"}
"""All that sign with a private key: with a shared one the published keys would be secrets."""
_LIFESPAN: Final = 300.0  # s that keys count as the issuer's present ones
_STALE: Final = 3600.0  # s that they count while the issuer cannot be reached
_PAUSE: Final = 10.0  # s between fetches, whatever tokens name
_TIMEOUT: Final = 5.0


class KeysUnavailable(DualStreamError):
    """The issuer's keys cannot be fetched: nothing is known of the token."""


class IssuerKeys:
    """Fetched when a token needs them, off the loop, one fetch at a time and at most one in ten seconds.

    So a new key is known within ten seconds of its first token, and a withdrawn one forgotten within five
    minutes; while the issuer cannot be reached, the last keys count for an hour. Waits last five seconds.
    """

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=_TIMEOUT)
        self._keys: dict[str, PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> PyJWK | None:
        """The key of that id, if the issuer has it. Raises KeysUnavailable."""
        key = self._keys.get(kid)
        if key is None or time.monotonic() - self._fetched_at > _LIFESPAN:
            fetching = self._refresh()
            if fetching is not None and not (key is not None and self._is_away()):
                await asyncio.shield(fetching)
            key = self._keys.get(kid)
        stale = time.monotonic() - self._fetched_at > _STALE
        if stale or (key is None and self._is_away()):
            raise KeysUnavailable("tokens cannot be checked now: their issuer's keys cannot be fetched")
        return key

    def _is_away(self) -> bool:
        return self._tried_at > self._fetched_at

    def _refresh(self) -> asyncio.Task[None] | None:
        if self._fetching is None and time.monotonic() - self._tried_at >= _PAUSE:
            self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                self._keys = await _in_thread(self._client)
        except (KeysUnavailable, TimeoutError) as error:
            log.warning("the keys of the tokens' issuer cannot be fetched: %s", str(error) or "no answer")
            self._tried_at = time.monotonic()
        else:
            self._tried_at = self._fetched_at = time.monotonic()
        finally:
            self._fetching = None


def _in_thread(client: jwt.PyJWKClient) -> asyncio.Future[dict[str, PyJWK]]:
    """Fetch in a thread that nobody has to wait for: a server may never end its answer."""
    keys: Future[dict[str, PyJWK]] = Future()
    keys.set_running_or_notify_cancel()  # so that it may still be settled when nobody waits any more

    def fetch() -> None:
        try:
            keys.set_result(_usable(client.get_jwk_set()))
        except Exception as error:  # noqa: BLE001  (whatever a stranger's answer makes of its parsers)
            keys.set_exception(KeysUnavailable(f"{type(error).__name__}: {error}"))

    threading.Thread(target=fetch, name="issuer keys", daemon=True).start()
    return asyncio.wrap_future(keys)


def _usable(keys: jwt.PyJWKSet) -> dict[str, PyJWK]:
    return {
        key.key_id: key
        for key in keys.keys
        if isinstance(key.key_id, str)
        and key.public_key_use in ("sig", None)
        and key.algorithm_name in _ALGORITHMS
    }
