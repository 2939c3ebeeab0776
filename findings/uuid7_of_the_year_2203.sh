#!/usr/bin/env bash
# uuid7: the package of that name makes ids that say version 7 and are not: today's are of the year 2203.
#
# One would expect: `pip install uuid7` makes what RFC 9562 calls UUIDv7: 48 bits of Unix milliseconds first, so that
# ids of all libraries sort by time together and the time can be read from them.
# What happens: uuid7 0.1.0 follows an early draft that was given up: 36 bits of seconds, then a binary fraction. Its
# ids carry version 7 and the right variant, so every check passes; among themselves they sort. Read by the RFC their
# time is 2203, and each sorts behind every standard UUIDv7 of the next 170 years.
# Since: uuid7 0.1.0 (the newest), against uuid6 2025.0.1 and uuid_utils 1.2.0.
# Why it matters: the point of UUIDv7 as event ids is "sort by id = sort by time" over all producers. One Python
# producer with this package puts its events at the end of every page and index for ever, makes "latest id seen"
# cursors skip all others, and gives time-partitioned stores a partition in the year 2203.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet uuid7==0.1.0 uuid6==2025.0.1 uuid_utils==1.2.0

venv/bin/python - <<'PY'
import sys
import time
import uuid
from datetime import datetime, timedelta, timezone
from importlib.metadata import version

import uuid6
import uuid_extensions
import uuid_utils

producers = {
    "uuid7": uuid_extensions.uuid7,
    "uuid6": uuid6.uuid7,
    "uuid_utils": lambda: uuid.UUID(str(uuid_utils.uuid7())),
}
made = []
for _ in range(2):
    for package, make in producers.items():
        made.append((make(), package))
        time.sleep(0.005)
epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
year = {}
print("in the order made:")
for id_, package in made:
    moment = epoch + timedelta(milliseconds=id_.int >> 80)
    year[package] = moment.year
    print(f"  {id_} version {id_.version}  {moment:%Y-%m-%d}  {package} {version(package)}")
ordered = [package for _, package in sorted(made)]
print("in the order of the ids:", ", ".join(ordered))
read = uuid_utils.UUID(str(made[0][0])).timestamp
print("uuid_utils reads from the first:", epoch + timedelta(milliseconds=read))

now = datetime.now(timezone.utc).year
standard = {year["uuid6"], year["uuid_utils"]} <= {now - 1, now, now + 1}
if not (standard and year["uuid7"] > now + 100 and made[0][0].version == 7 and ordered[-2:] == ["uuid7"] * 2):
    sys.exit("no longer so: the package uuid7 makes UUIDv7")
PY
