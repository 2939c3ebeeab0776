"""Who may read and write what: bearer tokens with source patterns, and which pages may connect."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jwt

from dualstream_lab.errors import ConfigError, DualStreamError
from dualstream_lab.gateway.issuer_keys import IssuerKeys

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings

__all__ = ["EVERYTHING", "Access", "Denied", "Grant", "is_host", "is_loopback", "is_origin"]

_PUBLIC_KEY_ALGORITHMS: Final = ["RS256", "ES256", "EdDSA"]
_MIN_SECRET: Final = 32
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
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


@lru_cache(maxsize=1000)
def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address, is this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def is_host(text: str) -> bool:
    """Whether it can be what a request calls this server: ``host`` or ``host:port``."""
    return _HOST.fullmatch(text) is not None


def is_origin(text: str) -> bool:
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
        given = [name for name in ("jwt_secret", "jwt_public_key", "jwks_url") if getattr(settings, name)]
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} exclude each other")
        if settings.jwt_secret is not None:
            self._key = settings.jwt_secret.get_secret_value()
            if len(self._key.encode()) < _MIN_SECRET:
                raise ConfigError(f"jwt_secret: must have at least {_MIN_SECRET} bytes")
        elif settings.jwt_public_key is not None:
            self._key, self._algorithms = _public_key(settings)
        elif settings.jwks_url is not None:
            self._issuer_keys = IssuerKeys(settings.jwks_url)
        if (self._audience or self._issuer) and not self.required:
            raise ConfigError("jwt_audience and jwt_issuer: only with jwt_secret, jwt_public_key or jwks_url")
        self._origins = {text.strip().rstrip("/") for text in settings.allowed_origins.split(",")} - {""}
        host = settings.listen.rpartition(":")[0]
        if not self.required and not is_loopback(host):
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
            claims = await self._claims(token)
            expires = float(claims["exp"])
        except jwt.ExpiredSignatureError as error:
            raise Denied("the token has expired") from error
        except _MALFORMED as error:
            raise Denied(f"the token is not valid: {error}") from error
        if not expires < _LAST_YEAR:
            raise Denied("the token is not valid: exp must be seconds since 1970")
        return Grant(
            read=_patterns(claims, "read"),
            write=_patterns(claims, "write"),
            expires=expires,
            name=_name(claims, token),
        )

    async def _claims(self, token: str) -> dict[str, Any]:
        key, algorithms = self._key, self._algorithms
        if self._issuer_keys is not None:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._issuer_keys.find(kid) if kid else None
            if key is None:
                raise Denied("the token is not valid: its kid is none of the issuer's keys")
            algorithms = [key.algorithm_name]
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=algorithms,
            audience=self._audience,
            issuer=self._issuer,
            options={"require": ["exp"], "verify_aud": self._audience is not None},
        )
        return claims

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether a page of this origin may connect; ``host``: what the request calls this server."""
        if origin is None:
            return True
        if not is_origin(origin):
            return False
        allowed = "*" in self._origins or origin.rstrip("/") in self._origins
        return allowed or urlsplit(origin).netloc == host

    def host_allowed(self, host: str) -> bool:
        """Without tokens only this machine's names: else any page could reach in by a name of its own."""
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return self.required or is_loopback(name)


def _public_key(settings: ServeSettings) -> tuple[Any, list[str]]:
    assert settings.jwt_public_key is not None  # noqa: S101
    try:
        text = settings.jwt_public_key.read_bytes()
    except OSError as error:
        raise ConfigError(f"jwt_public_key: {settings.jwt_public_key}: {error.strerror}") from error
    for name in _PUBLIC_KEY_ALGORITHMS:
        try:
            return jwt.get_algorithm_by_name(name).prepare_key(text), [name]
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
    allowed = ", ".join(_PUBLIC_KEY_ALGORITHMS)
    raise ConfigError(f"jwt_public_key: {settings.jwt_public_key} holds no PEM public key for {allowed}")


def _patterns(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    value = claims.get(name, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise Denied(f"the token's claim {name!r} must be a list of source patterns, such as repo:octo/*")
    return tuple(value)


def _name(claims: dict[str, Any], token: str) -> str:
    subject = claims.get("sub")
    if isinstance(subject, str) and subject:
        return f"subject {subject}"
    return f"token {hashlib.sha256(token.encode()).hexdigest()[:32]}"
