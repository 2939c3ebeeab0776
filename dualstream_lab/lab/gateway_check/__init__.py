"""Checks a gateway's handover, by event id: many clients connect, drop and resume while events flow.

``check``: the clients, the load and the quiet end. ``client``: one that comes and goes, and records what it
was told. ``judge``: what it should have been told. The truth is the Kafka topic itself.
"""

from __future__ import annotations

from dualstream_lab.lab.gateway_check.check import Check, Plan, Progress, check_gateway
from dualstream_lab.lab.gateway_check.serving import check_local

__all__ = ["Check", "Plan", "Progress", "check_gateway", "check_local"]
