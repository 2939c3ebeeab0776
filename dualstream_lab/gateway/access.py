"""Who may read and write what: bearer tokens with source patterns, and which pages may connect."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jwt

from dualstream_lab.errors import ConfigError, DualStreamError
from dualstream_lab.gateway.issuer_keys import IssuerKeys, KeysUnavailable
from dualstream_lab.http_server import HttpRefusal, report_refusal

if TYPE_CHECKING:
    from aiohttp import web

    from dualstream_lab.config import ServeSettings

_PUBLIC_KEY_ALGORITHMS: Final = ["RS256", "ES256", "EdDSA"]
_MIN_SECRET: Final = 32
_MAX_CHECKED: Final = 1000  # tokens, of some hundred bytes
_LAST_YEAR: Final = 253_402_300_800  # the year 10000: what is later is no time in seconds
_HOST = re.compile(r"([A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_MALFORMED: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What tokens raise, by the versions of PyJWT: a text is no token, or its claims are no claims."""


class Denied(DualStreamError):
    """A token that is missing, expired, forged, or does not say what it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token allows: patterns of sources (``repo:octo/*``), and until when (s since the epoch).

    ``name``: whose token it is, for what each may have so much of; empty where tokens are not asked for.
    """

    read: tuple[str, ...]
    write: tuple[str, ...]
    expires: float | None
    name: str = ""

    def left(self) -> float | None:
        """For how long it still allows it, in s; None: without an end."""
        return None if self.expires is None else max(0.0, self.expires - time.time())

    def may_read(self, source: str) -> bool:
        """Whether its bearer may follow the source (``type:id``)."""
        return any(_matches(pattern, source) for pattern in self.read)

    def may_write(self, source: str) -> bool:
        """Whether its bearer may publish to it."""
        return any(_matches(pattern, source) for pattern in self.write)


EVERYTHING = Grant(read=("*",), write=("*",), expires=None)


def _matches(pattern: str, text: str) -> bool:
    """``*`` stands for any characters; nothing else is special. Takes no longer for many of them."""
    first, *others = pattern.split("*")
    if not others:
        return pattern == text
    *inner, last = others
    at, end = len(first), len(text) - len(last)
    if at > end or not (text.startswith(first) and text.endswith(last)):
        return False
    for part in inner:
        hit = text.find(part, at, end)
        if hit < 0:
            return False
        at = hit + len(part)
    return True


@lru_cache(maxsize=1000)
def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _is_origin(text: str) -> bool:
    """Whether it can be what a browser calls the origin of a page."""
    try:
        urlsplit(text)
    except ValueError:
        return False
    return text.isascii() and text.isprintable()


class Access:
    """Checks tokens, origins and hosts. Raises ConfigError for settings that would let in anybody."""

    def __init__(self, settings: ServeSettings) -> None:
        self._key: Any = None
        self._algorithms = ["HS256"]
        self._issuer_keys: IssuerKeys | None = None
        self._audience, self._issuer = settings.jwt_audience, settings.jwt_issuer
        self._checked: dict[str, tuple[Any, Grant]] = {}  # tokens, with the key that they were checked by
        given = [name for name in ("jwt_secret", "jwt_public_key", "jwks_url") if getattr(settings, name)]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude each other")
        if settings.jwt_secret is not None:
            self._key = settings.jwt_secret.get_secret_value()
            if len(self._key.encode()) < _MIN_SECRET:
                raise ConfigError(f"jwt_secret: must have at least {_MIN_SECRET} bytes")
        elif settings.jwt_public_key is not None:
            self._key, self._algorithms = _public_key(settings.jwt_public_key)
        elif settings.jwks_url is not None:
            self._issuer_keys = IssuerKeys(settings.jwks_url)
        if (self._audience or self._issuer) and not self.required:
            raise ConfigError("jwt_audience and jwt_issuer: only with jwt_secret, jwt_public_key or jwks_url")
        self._origins = {text.strip().rstrip("/") for text in settings.allowed_origins.split(",")} - {""}
        host = settings.listen.rpartition(":")[0]
        if not self.required and not _is_loopback(host):
            raise ConfigError(
                f"listen: {settings.listen} is not a loopback address, and anybody could read and write; set "
                "DUALSTREAM_JWT_SECRET, DUALSTREAM_JWT_PUBLIC_KEY or DUALSTREAM_JWKS_URL, or listen on "
                "127.0.0.1"
            )

    @property
    def required(self) -> bool:
        """Whether a token is needed."""
        return self._key is not None or self._issuer_keys is not None

    async def grant(self, token: str | None) -> Grant:
        """What the token allows. Raises Denied saying what is wrong with it.

        Raises KeysUnavailable where the issuer's keys are needed and cannot be had; within seconds.
        """
        if not self.required:
            return EVERYTHING
        if not token:
            raise Denied("a bearer token is needed: Authorization: Bearer …")
        try:
            key, algorithms = await self._key_of(token)
            checked_by, grant = self._checked.get(token, (None, EVERYTHING))
            if checked_by is key and grant.left():
                return grant
            grant = _grant_of(token, self._claims(token, key, algorithms))
        except jwt.ExpiredSignatureError as error:
            raise Denied("the token has expired") from error
        except _MALFORMED as error:
            raise Denied(f"the token is not valid: {error}") from error
        if len(self._checked) >= _MAX_CHECKED:
            self._checked.clear()
        self._checked[token] = key, grant
        return grant

    async def _key_of(self, token: str) -> tuple[Any, list[str]]:
        """The key that the token is to be signed with, and the algorithms that go with it."""
        if self._issuer_keys is None:
            return self._key, self._algorithms
        kid = jwt.get_unverified_header(token).get("kid")
        key = await self._issuer_keys.find(kid) if kid else None
        if key is None:
            raise Denied("the token is not valid: its kid is none of the issuer's keys")
        return key, [key.algorithm_name]

    def _claims(self, token: str, key: Any, algorithms: list[str]) -> dict[str, Any]:
        options: Any = {"require": ["exp"], "verify_aud": self._audience is not None}
        named: Any = {"audience": self._audience, "issuer": self._issuer}
        return jwt.decode(token, key, algorithms, options, **named)

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether a page of this origin may connect; ``host``: what the request calls this server."""
        if origin is None:
            return True
        if not _is_origin(origin):
            return False
        allowed = "*" in self._origins or origin.rstrip("/") in self._origins
        return allowed or urlsplit(origin).netloc == host

    def let_in(self, request: web.Request) -> None:
        """Raises 400 or 403 for a page, or a name of this server, that may not."""
        host, origin = request.host, request.headers.get("Origin")
        for name, value, well_formed in ("Host", host, _HOST.fullmatch), ("Origin", origin, _is_origin):
            if value is not None and not well_formed(value):
                report_refusal(request, f"{name} is malformed: {value!r}")
                raise HttpRefusal(400, f"{name} is malformed")
        # Without tokens only this machine's names: else any page could reach in by a name of its own.
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if not (self.required or _is_loopback(name)):
            raise HttpRefusal(403, f"without tokens this server answers to localhost only, not to {host}")
        if not self.origin_allowed(origin, host):
            raise HttpRefusal(403, f"pages of {origin} may not connect (DUALSTREAM_ALLOWED_ORIGINS)")


def bearer(request: web.Request) -> str | None:
    """The token of a request: its header, or ``access_token`` where a browser cannot set one."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and token:
        return token.strip()
    return request.query.get("access_token")


async def grant_of(request: web.Request, access: Access) -> Grant:
    """What the request's token allows. Raises 401, and 503 where tokens cannot be checked."""
    token = bearer(request)
    try:
        return await access.grant(token)
    except KeysUnavailable as error:
        raise HttpRefusal(503, str(error), retry_after=2) from error
    except Denied as error:
        if token:
            report_refusal(request, str(error))
        raise HttpRefusal(401, str(error), headers={"WWW-Authenticate": "Bearer"}) from error


async def writer_of(request: web.Request, access: Access) -> Grant:
    """The same of one who sends events. Raises 403, too, for one who may write nothing."""
    grant = await grant_of(request, access)
    if not grant.write:
        raise HttpRefusal(403, "the token does not allow to write anything")
    return grant


def _public_key(path: Path) -> tuple[Any, list[str]]:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"jwt_public_key: {path}: {error.strerror}") from error
    for name in _PUBLIC_KEY_ALGORITHMS:
        try:
            return jwt.get_algorithm_by_name(name).prepare_key(text), [name]
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
    allowed = ", ".join(_PUBLIC_KEY_ALGORITHMS)
    raise ConfigError(f"jwt_public_key: {path} holds no PEM public key for {allowed}")


def _grant_of(token: str, claims: dict[str, Any]) -> Grant:
    """Of a token that was checked. Raises Denied, and what odd claims raise."""
    expires = float(claims["exp"])
    if not expires < _LAST_YEAR:
        raise Denied("the token is not valid: exp must be seconds since 1970")
    subject = claims.get("sub")
    if isinstance(subject, str) and subject:
        name = f"subject {subject}"
    else:
        name = f"token {hashlib.sha256(token.encode()).hexdigest()[:32]}"
    read, write = _patterns(claims, "read"), _patterns(claims, "write")
    return Grant(read=read, write=write, expires=expires, name=name)


def _patterns(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Denied(f"the token's claim {name!r} must be a list of source patterns, such as repo:octo/*")
    return tuple(value)
