#!/usr/bin/env bash
# msgspec: the time of day 23:59:59.9999999 is read as 00:00:00, and a datetime just before midnight is on the next
# day.
#
# One would expect: Python's times have six digits, so the seventh and on are cut, as datetime.fromisoformat and
# pydantic do; at any rate a time of day does not become 24 hours earlier.
# What happens: msgspec rounds to the nearest microsecond. A `datetime` of 2026-12-31T23:59:59.9999997Z is in the year
# 2027; a `time` has no day to carry into and wraps around: the last moment of the day becomes the first one. A
# MessagePack timestamp with nanoseconds is rounded as well; the last moment of the year 9999 (many systems' "for
# ever") is refused.
# Since: msgspec 0.22.0 and 0.23.0; pydantic 2.14.3 cuts.
# Why it matters: Go and Java write nine digits, .NET seven, and "end of the day" is commonly written with all nines.
# The same bytes are in one day's partition for a consumer with pydantic and in the next one's for a consumer with
# msgspec, so the two never agree on a day's count; an end that is rounded to 00:00:00 makes a range empty.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet msgspec==0.23.0 pydantic==2.14.3 msgpack==1.2.4

venv/bin/python - <<'PY'
import sys
from datetime import datetime, time
from importlib.metadata import version

import msgpack
import msgspec
from pydantic import TypeAdapter

print(", ".join(f"{name} {version(name)}" for name in ("msgspec", "pydantic", "msgpack")))
moment, clock = "2026-12-31T23:59:59.9999997Z", "23:59:59.9999999"
seen = {}
for text, kind in ((moment, datetime), (clock, time)):
    quoted = f'"{text}"'.encode()
    seen[kind] = msgspec.json.decode(quoted, type=kind)
    others = {"pydantic": TypeAdapter(kind).validate_json(quoted), "Python": kind.fromisoformat(text)}
    print(f"{text:<29} msgspec: {seen[kind]}", *(f"  {name}: {value}" for name, value in others.items()))
    if any(value.microsecond != 999_999 for value in others.values()):
        sys.exit("no longer so: the others do not cut")

packed = msgpack.packb(msgpack.Timestamp(1_798_761_599, 999_999_999))
from_messagepack = msgspec.msgpack.decode(packed)
print(f"MessagePack, 1 ns before 2027  msgspec: {from_messagepack}   msgpack: {msgpack.unpackb(packed, timestamp=3)}")
try:
    forever = msgspec.json.decode(b'"9999-12-31T23:59:59.9999999Z"', type=datetime)
except msgspec.ValidationError as error:
    forever = str(error)
print("9999-12-31T23:59:59.9999999Z   msgspec:", forever)

if not (seen[time] == time(0) and seen[datetime].year == from_messagepack.year == 2027 and "Invalid" in str(forever)):
    sys.exit("no longer so: msgspec cuts")
PY
