"""What fan-out costs: channels on Redis by policy, and clients of a gateway that joins its writes."""

from __future__ import annotations

from dualstream_lab.lab.scaling.channels import fan_out
from dualstream_lab.lab.scaling.ticks import coalescing

__all__ = ["coalescing", "fan_out"]
