#!/usr/bin/env bash
# cloudevents: a structured event that also carries the ce_ headers is read as binary, and its envelope becomes its
# data.
#
# One would expect: both the Kafka and the HTTP binding allow the ce_ headers beside a structured event (Kafka's
# 3.3.3, HTTP's 3.2.3: a router then need not parse the value), and both say how a reader tells the modes apart: by a
# content-type that begins with application/cloudevents. The SDK's own older API does so.
# What happens: the new API looks for any header that begins with ce_, and if there is one it reads the event as
# binary. There is no error: the event has all its attributes, but its data is the whole envelope ({"specversion": …,
# "data": {…}}) and its datacontenttype is application/cloudevents+json. Sent on in structured mode it is an envelope
# in an envelope.
# Since: cloudevents 2.2.0 (cloudevents.core, Kafka and HTTP); cloudevents.v1 of the same package is right.
# Why it matters: filters by type, source and id work, so all looks well until somebody asks for data["ref"]; and it
# depends on the *sender's* library, so it begins when a producer that nobody of the consumers knows is changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet cloudevents==2.2.0 python-dateutil==2.9.0.post0

venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

from cloudevents.core.bindings import http, kafka
from cloudevents.v1.http import from_http

ENVELOPE = (b'{"specversion": "1.0", "type": "push", "source": "/repo", "id": "17", "time": "2026-03-01T12:00:00Z",'
            b' "datacontenttype": "application/json", "data": {"ref": "main"}}')
MEDIA_TYPE = "application/cloudevents+json; charset=UTF-8"
ATTRIBUTES = {"specversion": "1.0", "type": "push", "source": "/repo", "id": "17", "time": "2026-03-01T12:00:00Z"}


def kafka_message(extra):
    headers = {"content-type": MEDIA_TYPE.encode()} | {f"ce_{name}": value.encode() for name, value in extra.items()}
    return kafka.KafkaMessage(headers=headers, key=None, value=ENVELOPE)


def http_headers(extra):
    return {"content-type": MEDIA_TYPE} | {f"ce-{name}": value for name, value in extra.items()}


print("cloudevents", version("cloudevents"), "- the data of one and the same envelope:")
seen = {}
for name, extra in (("without", {}), ("with", ATTRIBUTES)):
    seen["Kafka", name] = kafka.from_kafka_event(kafka_message(extra))
    seen["HTTP", name] = http.from_http_event(http.HTTPMessage(headers=http_headers(extra), body=ENVELOPE))
    for binding in ("Kafka", "HTTP"):
        event = seen[binding, name]
        print(f"  {binding}, {name} ce headers: {event.get_datacontenttype()}: {event.get_data()}")
old = from_http(http_headers(ATTRIBUTES), ENVELOPE)
print("  cloudevents.v1, HTTP, with ce headers:", old.data)

right = all(seen[binding, "without"].get_data() == {"ref": "main"} for binding in ("Kafka", "HTTP"))
wrong = all(seen[binding, "with"].get_data().get("data") == {"ref": "main"} for binding in ("Kafka", "HTTP"))
if not (right and wrong and old.data == {"ref": "main"}):
    sys.exit("no longer so: the content type decides the mode")
PY
