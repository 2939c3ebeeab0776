#!/usr/bin/env bash
# uvloop: sleep(0.0004) does not sleep at all, sleep(0.0014) lasts 1 ms, and timeout(0.0004) is over at once.
#
# One would expect: a sleep may last longer than asked, never shorter: asyncio's own loop keeps to that and rounds up,
# and uvloop is a drop-in replacement for it.
# What happens: uvloop rounds a delay to the *nearest* whole millisecond (libuv's timers know nothing finer). Below
# 0.5 ms nothing is waited: the task goes round the loop at full speed. 1.4 ms is 1. asyncio.timeout(0.0004) cancels
# what it guards in its first turn. loop.time() steps by whole milliseconds, so an interval measured with it is 0 or 1
# ms.
# Since: uvloop 0.23.0, against asyncio of the same Python.
# Why it matters: a generator of load that paces 2,500 events/s by sleep(0.0004) sends as fast as it can under uvloop
# (and 900/s without: asyncio rounds up to a whole millisecond); with 0.7 ms it is a third too slow. Neither loop says
# so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet uvloop==0.23.0

venv/bin/python - <<'PY'
import asyncio
import platform
import sys
import time
from importlib.metadata import version

import uvloop

DELAYS = (0.0004, 0.0014, 0.0024)
PACES = 500


async def shortest(delay):
    """The shortest of 50 sleeps of this delay: a busy machine makes sleeps longer, never shorter."""
    lasted = []
    for _ in range(50):
        started = time.perf_counter()
        await asyncio.sleep(delay)
        lasted.append(time.perf_counter() - started)
    return min(lasted)


async def paced(delay):
    started = time.perf_counter()
    for _ in range(PACES):
        await asyncio.sleep(delay)
    return time.perf_counter() - started


async def steps():
    """The different steps of loop.time() within 30 ms, in µs."""
    loop, seen, last, end = asyncio.get_running_loop(), set(), 0.0, time.perf_counter() + 0.03
    while time.perf_counter() < end:
        await asyncio.sleep(0)
        now = loop.time()
        if last and now != last:
            seen.add(round((now - last) * 1e6))
        last = now
    return seen


async def measured():
    return [await shortest(delay) for delay in DELAYS], await paced(DELAYS[0]), await steps()


print(f"uvloop {version('uvloop')}, Python {platform.python_version()}")
result = {"asyncio": asyncio.run(measured()), "uvloop": uvloop.run(measured())}
for loop, (lasted, took, clock) in result.items():
    sleeps = ", ".join(f"{1e3 * delay:.1f} ms: {1e3 * seen:.3f}" for delay, seen in zip(DELAYS, lasted))
    print(f"{loop:<8} the shortest sleep of {sleeps} ms")
    print(f"{'':<8} {PACES} sleeps of 0.4 ms took {took:.3f} s (not under {PACES * DELAYS[0]:.1f}); "
          f"loop.time() steps by {min(clock)} µs or more")

early = all(seen < delay for seen, delay in zip(result["uvloop"][0], DELAYS))
late = all(seen >= delay for seen, delay in zip(result["asyncio"][0], DELAYS))
coarse = all(step % 1000 == 0 for step in result["uvloop"][2]) and min(result["asyncio"][2]) < 1000
if not (early and late and coarse and result["uvloop"][1] < 0.5 * PACES * DELAYS[0]):
    sys.exit("no longer so: uvloop's sleeps last as long as asked")
PY
