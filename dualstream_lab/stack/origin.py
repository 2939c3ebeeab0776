"""Settings in messages, by the name that they were given under: ``--kafka`` where that was typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from dualstream_lab.config import Settings
from dualstream_lab.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ambient", "with_origins"]

_OPTIONS: Final = {"kafka_url": "--kafka", "redis_url": "--redis"}


def with_origins(text: str, arguments: Sequence[str]) -> str:
    """A message about a setting of brokers, as whoever gave it with these arguments, or in the environment,
    can act on it; an address that came from the environment is said to.
    """
    for setting, option in _OPTIONS.items():
        variable = f"DUALSTREAM_{setting.upper()}"
        if any(word == option or word.startswith(f"{option}=") for word in arguments):
            text = _renamed(setting, option, text)
        elif _names(text, ambient(setting)):
            text = re.sub(rf"\bcheck {setting}\b", f"the address is from {variable}", text)
            text = _renamed(setting, variable, text)
            if variable not in text:
                text += f" (the address is from {variable})"
        else:
            text = _renamed(setting, f"{option} ({variable})", text)
            text = text.replace(f" ({variable}) ({variable})", f" ({variable})")
    return text


def _renamed(setting: str, name: str, text: str) -> str:
    """But not within code, where it is a parameter's name."""
    return re.sub(rf"(`[^`]*`)|\b{setting}\b", lambda found: found[1] or name, text)


def ambient(setting: str) -> str:
    """What the environment says; nothing where it says what cannot be."""
    try:
        return str(getattr(Settings.load(), setting) or "")
    except ConfigError:
        return ""


def _names(text: str, url: str) -> bool:
    """Whether one of the URL's servers is in the text."""
    return any(server in text for server in re.findall(r"[^\s,@/]+:\d+", url))
