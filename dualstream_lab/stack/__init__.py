"""A real Kafka and a real Valkey as child processes, without Docker or root."""

from __future__ import annotations

from dualstream_lab.stack.local import LocalStack
from dualstream_lab.stack.process import ManagedProcess
from dualstream_lab.stack.settings import TlsMaterial
from dualstream_lab.stack.state import StackInfo, running_stack
from dualstream_lab.stack.valkey import tls_capable_redis

__all__ = ["LocalStack", "ManagedProcess", "StackInfo", "TlsMaterial", "running_stack", "tls_capable_redis"]
