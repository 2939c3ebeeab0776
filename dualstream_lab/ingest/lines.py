"""Makes events of lines, and of webhooks' bodies. No I/O."""

from __future__ import annotations

from typing import Literal

import msgspec

from dualstream_lab.errors import EventError
from dualstream_lab.event import Event, decode_event, invalid_reason, new_id

Format = Literal["event", "github-webhook"]
FORMATS: tuple[Format, ...] = ("event", "github-webhook")


class _Name(msgspec.Struct):
    full_name: str | None = None
    login: str | None = None


class _Subject(msgspec.Struct):
    """What of a GitHub payload says its type and source."""

    action: str | None = None
    repository: _Name | None = None
    organization: _Name | None = None
    sender: _Name | None = None


class _Webhook(msgspec.Struct):
    event: str
    payload: msgspec.Raw


_webhooks = msgspec.json.Decoder(_Webhook)
_subjects = msgspec.json.Decoder(_Subject)


def parse_line(line: bytes, form: Format) -> Event:
    """Parse the event in a line; its ``data`` keeps its bytes. Raises EventError.

    ``event``: an event as JSON. ``github-webhook``: ``{"event": …, "payload": …}``, see
    :func:`webhook_event`.
    """
    if form == "event":
        return _valid(decode_event(line))
    try:
        line.decode()  # raw data is not looked into, and JSON is UTF-8
        hook = _webhooks.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise EventError(f"not a GitHub webhook: {error}") from error
    return webhook_event(hook.event, hook.payload, new_id())


def webhook_event(name: str, payload: msgspec.Raw, event_id: str) -> Event:
    """Make an event of GitHub's delivery; the payload, which must be UTF-8, becomes ``data`` as it stands.

    The type is the event's name and the payload's action, the source its repository, else its organisation,
    else its sender. Raises EventError.
    """
    try:
        subject = _subjects.decode(payload)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise EventError(f"not a GitHub webhook: {error}") from error
    if subject.repository and subject.repository.full_name:
        source = ("repo", subject.repository.full_name)
    elif subject.organization and subject.organization.login:
        source = ("org", subject.organization.login)
    elif subject.sender and subject.sender.login:
        source = ("user", subject.sender.login)
    else:
        raise EventError("has no source: neither repository.full_name, organization.login nor sender.login")
    kind = f"{name}.{subject.action}" if subject.action else name
    return _valid(Event(id=event_id, type=kind, source_type=source[0], source_id=source[1], data=payload))


def _valid(event: Event) -> Event:
    if reason := invalid_reason(event):
        raise EventError(reason)
    return event
