#!/usr/bin/env bash
# fastavro, avro: an integer in a union of double and long becomes a double, in one for one order of the branches and
# in the other for the other.
#
# One would expect: a union's branches are told apart by type: of ["null", "double", "long"] an int takes long, in
# whatever order: the specification gives the order a meaning for the default only.
# What happens: to both Python packages an int is valid for double too. fastavro takes the *first* branch that could
# hold the value, Apache's avro the *last*. So 9007199254740993 is read back as 9007199254740992.0, a time in
# nanoseconds is up to 128 ns off, and with "float" in the union it is off by a minute. No order is right for both
# packages, and small numbers do not show it in tests: 5 == 5.0.
# Since: fastavro 1.13.1, avro 1.12.2.
# Why it matters: "a number" in a schema of events is mostly such a union. Ids of 64 bits and nanoseconds are what
# passes 2^53, and the wrong bytes are in the log for every reader in every language.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet fastavro==1.13.1 avro==1.12.2

venv/bin/python - <<'PY'
import io
import json
import sys
from importlib.metadata import version

import avro.io
import avro.schema
import fastavro


def by_fastavro(schema, value):
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), value)
    return buffer.getvalue()


def by_avro(schema, value):
    buffer = io.BytesIO()
    avro.io.DatumWriter(avro.schema.parse(json.dumps(schema))).write(value, avro.io.BinaryEncoder(buffer))
    return buffer.getvalue()


def read(schema, encoded):
    return fastavro.schemaless_reader(io.BytesIO(encoded), fastavro.parse_schema(schema), None)


print("fastavro", version("fastavro"), "and avro", version("avro"))
MOMENT, ID = 1_732_960_000_123_456_789, 2**53 + 1
error = {}
for first, last, value in (
    ("double", "long", ID), ("long", "double", ID),
    ("double", "long", MOMENT), ("long", "double", MOMENT),
    ("float", "long", MOMENT), ("long", "float", MOMENT),
):
    union = ["null", first, last]
    print(f'{value} in ["null", "{first}", "{last}"]')
    for package, write in (("fastavro", by_fastavro), ("avro", by_avro)):
        back = read(union, write(union, value))
        error[package, first, last, value] = int(back) - value
        print(f"  {package:<8} {back!r:<24} {int(back) - value:+d}")

wrong = {key for key, difference in error.items() if difference}
by_order = {(package, first) for package, first, _, _ in wrong}
if by_order != {("fastavro", "double"), ("fastavro", "float"), ("avro", "long")} or len(wrong) != 6:
    sys.exit("no longer so: an int is written as a long")
PY
