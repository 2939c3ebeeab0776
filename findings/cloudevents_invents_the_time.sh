#!/usr/bin/env bash
# cloudevents: an event that has no time is given one when it is *read*: now.
#
# One would expect: `time` is an optional attribute, so of a record without `ce_time` the SDK says None, as it does
# for `subject`; and what is read twice is equal.
# What happens: from_binary and from_structured build the event with the constructor that is meant for producers,
# which fills in datetime.now(). The same record read twice has two times. A record without `ce_id` (invalid: the id
# is required) is not refused either: it gets a new random id at each reading.
# Since: cloudevents 2.2.0 (cloudevents.core, the new API) and, for the time, in its old API `cloudevents.v1` too.
# Why it matters: delivery latency computed as "now - event.time" is near zero for such events however old they are, a
# replay of last year's topic has happened just now, windows by event time hold the wrong events, and deduplication by
# id takes each copy for a new event.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet cloudevents==2.2.0 python-dateutil==2.9.0.post0

venv/bin/python - <<'PY'
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version

from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, from_structured_event
from cloudevents.v1.http import from_http

print("cloudevents", version("cloudevents"))
required = {"ce_specversion": b"1.0", "ce_type": b"push", "ce_source": b"/repo"}
record = KafkaMessage(headers={**required, "ce_id": b"17"}, key=None, value=b'{"ref": "main"}')
started = datetime.now(timezone.utc)
binary = []
for _ in range(2):
    binary.append(from_binary_event(record).get_time())
    time.sleep(0.01)
print("one Kafka record without ce_time, read twice: ", *binary)

envelope = KafkaMessage(
    headers={"content-type": b"application/cloudevents+json"}, key=None,
    value=b'{"specversion": "1.0", "type": "push", "source": "/repo", "id": "17"}')
structured = from_structured_event(envelope).get_time()
print("one JSON envelope without time:               ", structured)

old = from_http({"ce-specversion": "1.0", "ce-type": "push", "ce-source": "/repo", "ce-id": "17"}, b"{}")
print("the old API, one HTTP request without ce-time:", old["time"])

no_id = KafkaMessage(headers=required, key=None, value=b"{}")
ids = [from_binary_event(no_id).get_id() for _ in range(2)]
print("one record without the required ce_id:        ", *ids)

made_up = all(moment is not None and moment >= started for moment in (*binary, structured))
if not (made_up and binary[0] != binary[1] and old["time"] and ids[0] != ids[1]):
    sys.exit("no longer so: what the record does not say is not made up")
PY
