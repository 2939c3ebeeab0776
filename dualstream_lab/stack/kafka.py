"""The stack's Kafka: brokers in KRaft mode, each both broker and controller, on loopback."""

from __future__ import annotations

import re
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dualstream_lab.errors import StackError
from dualstream_lab.stack.ports import HOST
from dualstream_lab.stack.process import ManagedProcess
from dualstream_lab.stack.runtime import Runtime
from dualstream_lab.stack.settings import TlsMaterial, broker_settings, node_settings

_PROTOCOLS = "CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,SASL_SSL:SASL_SSL"
_READY = "Kafka Server started"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerPorts:
    """A broker's ports on 127.0.0.1; ``tls`` is 0 without an encrypted listener."""

    client: int
    controller: int
    tls: int = 0


def new_id() -> str:
    """Make a random Kafka UUID: base64 without padding, and never a leading dash."""
    while True:
        text = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def broker_process(
    node: int, *, ports: Sequence[BrokerPorts], cluster_id: str, runtime: Runtime, directory: Path,
    remove: Path | None, settings: Mapping[str, str], tls: TlsMaterial | None = None,
) -> ManagedProcess:  # fmt: skip
    """Make broker ``node`` (from 1) of a cluster with these ports: its files are written, it is not started.

    An existing directory's data are kept.
    """
    data = directory / "data"
    for needed in (data, directory / "tmp"):
        needed.mkdir(parents=True, exist_ok=True)
    if not (data / "meta.properties").exists():
        runtime.format(data, cluster_id=cluster_id, node=node, directory_id=new_id())
    properties = directory / "server.properties"
    all_settings = _settings(node, ports, data, tls) | dict(settings)
    properties.touch(mode=0o600)
    lines = (f"{name}={value}\n" for name, value in all_settings.items())
    properties.write_text("".join(lines), encoding="utf-8")
    java = runtime.command(heap_mb=512 if len(ports) == 1 else 320, temporary=directory / "tmp")
    return ManagedProcess(
        name=f"Kafka broker {node}", command=[*java, "kafka.Kafka", str(properties)],
        log=directory / "server.log", ready=lambda log: _READY in log, explain=_explain, remove=remove,
        start_timeout=90.0, stop_timeout=15.0,
    )  # fmt: skip


def _settings(node: int, ports: Sequence[BrokerPorts], data: Path, tls: TlsMaterial | None) -> dict[str, str]:
    own = ports[node - 1]
    client = f"INTERNAL://{HOST}:{own.client}"
    if tls is not None:
        client += f",SASL_SSL://{HOST}:{own.tls}"
    settings = broker_settings(len(ports)) | node_settings(
        node, controllers=[f"{HOST}:{one.controller}" for one in ports],
        listeners=f"{client},CONTROLLER://{HOST}:{own.controller}", advertised=client, protocols=_PROTOCOLS,
        data=str(data),
    )  # fmt: skip
    return settings | (_tls_settings(data.parent, tls) if tls is not None else {})


def _tls_settings(directory: Path, tls: TlsMaterial) -> dict[str, str]:
    """Make the settings of the encrypted listener; its keystore is the key and its chain in one PEM file."""
    keystore = directory / "keystore.pem"
    keystore.touch(mode=0o600)
    keystore.write_bytes(Path(tls.key).read_bytes() + Path(tls.certificate).read_bytes())
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    login = f'{module} required user_{tls.user}="{tls.password}";'
    return {
        "sasl.enabled.mechanisms": "PLAIN", "listener.name.sasl_ssl.plain.sasl.jaas.config": login,
        "listener.name.sasl_ssl.ssl.keystore.type": "PEM",
        "listener.name.sasl_ssl.ssl.keystore.location": str(keystore),
    }  # fmt: skip


# What the log of a failed start says → what it means and what to do.
_CAUSES = {
    r"Address already in use|Socket server failed to bind": "a port is in use",
    r"No space left on device": "the disk is full: free space, or choose another --directory",
    r"Failed to acquire lock": "another stack uses this directory: choose another --directory",
    r"AccessDeniedException|Permission denied|Read-only file system|is not a directory": (
        "its directory cannot be written: check it, or choose another --directory"
    ),
    r"OutOfMemoryError|insufficient memory|Could not reserve enough space": "there is not enough memory",
}


def _explain(log: str) -> str:
    causes = [meaning for pattern, meaning in _CAUSES.items() if re.search(pattern, log)]
    telling = [line for line in log.splitlines() if re.search(r"ERROR|FATAL|Exception|Error", line)]
    lines = telling[-3:] or [line for line in log.splitlines() if line.strip()][-3:]
    detail = " / ".join(line.strip()[:300] for line in lines) or "it left no log"
    return f"{causes[0]} ({detail})" if causes else detail


def port_taken(error: StackError) -> bool:
    """Find whether a start failed for a port that something else took in the meantime."""
    return "port is in use" in str(error)
