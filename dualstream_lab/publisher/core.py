"""The loops that every event goes through: compiled where that was built, in plain Python elsewhere.

``DUALSTREAM_CORE=plain`` in the environment of a process takes the plain one in any case.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or os.environ.get("DUALSTREAM_CORE") == "plain":
    from dualstream_lab.publisher.plain import NAME, encode, frame, publish_commands, record
else:
    try:
        from dualstream_lab.publisher.compiled import NAME, encode, frame, publish_commands, record
    except ImportError:
        from dualstream_lab.publisher.plain import NAME, encode, frame, publish_commands, record

__all__ = ["NAME", "encode", "frame", "publish_commands", "record"]
