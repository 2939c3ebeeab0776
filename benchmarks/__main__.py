"""``python -m benchmarks``: ratios against peers, measured side by side on the local stack."""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
from pathlib import Path

from benchmarks.calibration import calibration
from benchmarks.compression import compression
from benchmarks.fanout import fanout
from benchmarks.ledger import ledger
from benchmarks.live import latencies, memory, outages
from benchmarks.load import load
from benchmarks.peer import PEERS, NotRun
from benchmarks.processor import processor
from benchmarks.proxy import proxy
from benchmarks.recorded import recorded
from benchmarks.report import report
from benchmarks.simulation import simulation
from benchmarks.soak import abuse_soak, soak
from benchmarks.table import Figures, markdown, put
from benchmarks.throughput import SHAPES, measure
from dualstream_lab.errors import DualStreamError
from dualstream_lab.stack import LocalStack

TABLES = Path(__file__).parent.parent / "docs/benchmarks.md"
_ALONE = {"recorded": recorded, "ledger": ledger, "report": report, "simulation": simulation}
"""Those that measure neither broker."""
_PACED = {"latency": latencies, "outage": outages}
_ROUNDS = {"load": load, "processor": processor}
_QUICK = {"calibration": calibration, "compression": compression, "fanout": fanout, "proxy": proxy}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="throughput",
        choices=["throughput", *_PACED, *_ROUNDS, *_QUICK, "memory", *_ALONE, "soak"],
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help=f"peers, by semicolon: {'; '.join(PEERS)}")
    parser.add_argument("--shape", help=f"shapes, by semicolon: {'; '.join(SHAPES)}")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--abuse", action="store_true", help="soak: under abuse, for ten minutes")
    parser.add_argument("--rate", type=float, default=10_000, help="events/s of latency, outage and memory")
    parser.add_argument("--seconds", type=float, default=10, help="length of one run of latency and outage")
    parser.add_argument("--minutes", type=float, default=10, help="length of memory")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    given = parser.parse_args()
    for name, allowed in (("only", PEERS), ("shape", SHAPES)):
        chosen = [part.strip() for part in (getattr(given, name) or ";".join(allowed)).split(";")]
        if unknown := [part for part in chosen if part not in allowed]:
            parser.error(f"--{name}: unknown {unknown[0]!r}; allowed, by semicolon: {'; '.join(allowed)}")
        setattr(given, name, chosen)
    return given


def _throughput(stack: LocalStack, given: argparse.Namespace) -> str:
    figures = Figures()
    rounds, scale = (1, 0.1) if given.quick else (given.rounds, 1.0)
    try:
        measure(stack, figures, peers=given.only, shapes=given.shape, rounds=rounds, scale=scale)
    except KeyboardInterrupt:
        print("interrupted: the table has what was measured", file=sys.stderr)
    return markdown(figures, shapes=given.shape, peers=given.only)


def _on_a_stack(given: argparse.Namespace) -> str:
    with LocalStack(progress=lambda line: print(line, file=sys.stderr)) as stack:
        if given.what in _PACED:
            return _PACED[given.what](stack, rate=given.rate, seconds=given.seconds, rounds=given.rounds)
        if given.what in _ROUNDS:
            return _ROUNDS[given.what](stack, rounds=given.rounds)
        if given.what in _QUICK:
            return _QUICK[given.what](stack, rounds=given.rounds, quick=given.quick)
        if given.what == "memory":
            return memory(stack, rate=given.rate, minutes=given.minutes)
        return _throughput(stack, given)


def main() -> int:
    given = _arguments()
    machine = (
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, everything on it"
    )
    held = True
    try:
        if given.what == "soak":
            text, held = abuse_soak() if given.abuse else soak(quick=given.quick)
        elif given.what in _ALONE:
            text = _ALONE[given.what]()
        else:
            text = _on_a_stack(given)
    except (DualStreamError, NotRun) as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    text = f"{text}\n\nMeasured on {machine}."
    print(text)
    if given.write:
        TABLES.write_text(
            put(TABLES.read_text(encoding="utf-8"), "abuse" if given.abuse else given.what, text),
            encoding="utf-8",
        )
    return 0 if held else 99


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it started ends with it, as with Ctrl-C
    sys.exit(main())
