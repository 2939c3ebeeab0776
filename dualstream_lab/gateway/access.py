"""Who may read and write what: bearer tokens with source patterns, and which pages may connect."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jwt

from dualstream_lab.errors import ConfigError, DualStreamError

if TYPE_CHECKING:
    from dualstream_lab.config import ServeSettings

__all__ = ["EVERYTHING", "Access", "Denied", "Grant", "is_loopback"]

_PUBLIC_KEY_ALGORITHMS = ["RS256", "ES256", "EdDSA"]
_MIN_SECRET = 32


class Denied(DualStreamError):
    """A token that is missing, expired, forged, or does not say what it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a token allows: patterns of sources (``repo:octo/*``), and until when (s since the epoch)."""

    read: tuple[str, ...]
    write: tuple[str, ...]
    expires: float | None

    def may_read(self, source: str) -> bool:
        """Whether its bearer may follow the source (``type:id``)."""
        return any(_pattern(text).fullmatch(source) for text in self.read)

    def may_write(self, source: str) -> bool:
        """Whether its bearer may publish to it."""
        return any(_pattern(text).fullmatch(source) for text in self.write)


EVERYTHING = Grant(read=("*",), write=("*",), expires=None)


@lru_cache(maxsize=10_000)
def _pattern(text: str) -> re.Pattern[str]:
    """``*`` stands for any characters; nothing else is special."""
    return re.compile(".*".join(map(re.escape, text.split("*"))), re.DOTALL)


@lru_cache(maxsize=1000)
def is_loopback(host: str) -> bool:
    """Whether a host, as a name or an address, is this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Access:
    """Checks tokens, origins and hosts. Raises ConfigError for settings that would let in anybody."""

    def __init__(self, settings: ServeSettings) -> None:
        self._key: Any = None
        self._algorithms = ["HS256"]
        if settings.jwt_secret is not None and settings.jwt_public_key is not None:
            raise ConfigError("jwt_secret and jwt_public_key exclude each other")
        if settings.jwt_secret is not None:
            self._key = settings.jwt_secret.get_secret_value()
            if len(self._key.encode()) < _MIN_SECRET:
                raise ConfigError(f"jwt_secret: must have at least {_MIN_SECRET} bytes")
        elif settings.jwt_public_key is not None:
            self._key, self._algorithms = _public_key(settings)
        self._origins = {text.strip().rstrip("/") for text in settings.allowed_origins.split(",")} - {""}
        host = settings.listen.rpartition(":")[0]
        if not self.required and not is_loopback(host):
            raise ConfigError(
                f"listen: {settings.listen} is not a loopback address, and anybody could read and write; "
                "set DUALSTREAM_JWT_SECRET or DUALSTREAM_JWT_PUBLIC_KEY, or listen on 127.0.0.1"
            )

    @property
    def required(self) -> bool:
        """Whether a token is needed."""
        return self._key is not None

    def grant(self, token: str | None) -> Grant:
        """What the token allows. Raises Denied saying what is wrong with it."""
        if not self.required:
            return EVERYTHING
        if not token:
            raise Denied("a bearer token is needed: Authorization: Bearer …")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=self._algorithms,
                options={"require": ["exp"], "verify_aud": False},
            )
        except jwt.ExpiredSignatureError as error:
            raise Denied("the token has expired") from error
        except (jwt.InvalidTokenError, UnicodeError) as error:
            raise Denied(f"the token is not valid: {error}") from error
        return Grant(
            read=_patterns(claims, "read"), write=_patterns(claims, "write"), expires=float(claims["exp"])
        )

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether a page of this origin may connect; ``host``: what the request calls this server."""
        if origin is None or "*" in self._origins or origin.rstrip("/") in self._origins:
            return True
        return urlsplit(origin).netloc == host

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
