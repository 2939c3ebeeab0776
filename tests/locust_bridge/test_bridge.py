"""asyncio beside gevent, in a process of its own: Locust patches what it is imported into."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import locust, gevent, asyncio, threading, time
from dualstream_lab.locust_bridge.bridge import Bridge

bridge = Bridge()

async def answer(value):
    await asyncio.sleep(0.001)
    return value

async def fail():
    raise ValueError("from the loop")

async def kind():
    return type(asyncio.get_running_loop()).__module__

async def block():
    time.sleep(0.3)  # patched: were this a greenlet, it would switch

{body}
bridge.close()
bridge.close()
print("done")
"""


def run(body: str) -> None:
    program = PROGRAM.format(body=body)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("done")
    assert "Traceback" not in done.stderr


def test_results_and_errors_cross_and_the_loop_is_uvloop():
    run("""
assert bridge.call(answer(7)) == 7
assert bridge.call(kind()) == "uvloop"
try:
    bridge.call(fail())
except ValueError as error:
    assert str(error) == "from the loop"
else:
    raise AssertionError("no error")
""")


def test_a_thousand_greenlets_get_their_own_answers():
    run("""
jobs = [gevent.spawn(bridge.call, answer(n)) for n in range(1000)]
gevent.joinall(jobs, timeout=20)
assert [job.value for job in jobs] == list(range(1000))
""")


def test_greenlets_go_on_while_one_waits_and_a_wait_can_be_bounded():
    run("""
ticks = []
def tick():
    for _ in range(20):
        gevent.sleep(0.01)
        ticks.append(time.monotonic())
other = gevent.spawn(tick)
ended = []
async def long():
    try:
        await asyncio.sleep(60)
    finally:
        ended.append(True)
try:
    bridge.call(long(), timeout=1.5)
except TimeoutError as error:  # an Exception: gevent.Timeout would end the greenlet without a word
    assert "1.5 s" in str(error)
else:
    raise AssertionError("no timeout")
assert len(ticks) >= 15, len(ticks)
with gevent.Timeout(20):
    while not ended:  # what took too long is cancelled
        gevent.sleep(0.01)
other.kill()
""")


def test_closing_cancels_what_is_open():
    run("""
def wait():
    try:
        bridge.call(asyncio.sleep(60))
    except asyncio.CancelledError:
        return "cancelled"
waiting = gevent.spawn(wait)
gevent.sleep(0.1)
began = time.monotonic()
bridge.close()
assert waiting.get(timeout=20) == "cancelled"
assert time.monotonic() - began < 20
""")


def test_closing_ends_a_task_that_swallows_a_cancellation_and_leaves_one_that_never_ends():
    run("""
async def stubborn(times):
    while times:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            times -= 1
gevent.spawn(bridge.call, stubborn(1))
gevent.sleep(0.1)
began = time.monotonic()
bridge.close()
assert time.monotonic() - began < 20

bridge = Bridge()
gevent.spawn(bridge.call, stubborn(10**9))
gevent.sleep(0.1)
bridge.close(timeout=0.5)
""")
