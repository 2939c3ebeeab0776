#!/usr/bin/env bash
# DuckDB, Polars, PyArrow: what the first rows do not show is rounded or dropped, without an error.
#
# One would expect: a reader of NDJSON that infers the types from a sample reads on when a later line does not fit, or
# fails, as DuckDB does for a late text. 2.5 is never stored as an integer by itself.
# What happens: DuckDB's read_json looks at the first 20,480 lines. A field that was whole up to there is BIGINT for
# all, and later decimals are rounded to it: 1 ms, 1 ms, … then 2.5 ms is read as 2, so a sum, an average and a
# maximum are wrong. A field that first appears later (say "error") does not exist: no column, so no way to ask for
# it. Polars' read_ndjson and DataFrame(list of dicts) drop such fields too (they look at 100 rows); late decimals
# Polars refuses. PyArrow's from_pylist takes the fields of the *first* row alone. Only pandas and pyarrow.json read
# what is in the file.
# Since: duckdb 2.0.1, polars 2.1.0, pyarrow 26.0.1 (against pandas 3.1.1).
# Why it matters: this is just the shape of a run with a fault in it: 25,000 healthy events, then the outage with its
# error field and its slow, fractional latencies.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet duckdb==2.0.1 polars==2.1.0 pyarrow==26.0.1 pandas==3.1.1

venv/bin/python - <<'PY'
import json
import sys
from importlib.metadata import version

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.json

events = [{"id": i, "ms": 1} for i in range(25_000)]
events += [{"id": i, "ms": 2.5, "error": "timeout"} for i in range(25_000, 30_000)]
with open("events.ndjson", "w", encoding="ascii") as file:
    file.writelines(json.dumps(event) + "\n" for event in events)
whole = [{key: event[key] for key in event if key != "ms"} for event in events]  # nothing but the late field
with open("whole.ndjson", "w", encoding="ascii") as file:
    file.writelines(json.dumps(event) + "\n" for event in whole)

print(", ".join(f"{name} {version(name)}" for name in ("duckdb", "polars", "pyarrow", "pandas")))
true_sum = sum(event["ms"] for event in events)
duck_sum, duck_max = duckdb.execute("SELECT sum(ms), max(ms) FROM read_json('events.ndjson')").fetchone()
print(f"sum and maximum of ms: true {true_sum} and 2.5; DuckDB {duck_sum} and {duck_max}")
try:
    pl.read_ndjson("events.ndjson")
    polars_refuses = False
except pl.exceptions.ComputeError as error:
    polars_refuses = True
    print("                       Polars refuses:", str(error).splitlines()[0])
print("                       pandas", pd.read_json("events.ndjson", lines=True)["ms"].sum())

columns = {
    "duckdb read_json": [column[0] for column in duckdb.execute("FROM read_json('whole.ndjson')").description],
    "polars read_ndjson": pl.read_ndjson("whole.ndjson").columns,
    "polars DataFrame(dicts)": pl.DataFrame(whole).columns,
    "pyarrow from_pylist": pa.Table.from_pylist(whole).column_names,
    "pyarrow.json": pa.json.read_json("whole.ndjson").column_names,
    "pandas read_json": list(pd.read_json("whole.ndjson", lines=True).columns),
}
for reader, names in columns.items():
    print(f"columns by {reader:<24}", ", ".join(names))
second_row = pa.Table.from_pylist([{"id": 1}, {"id": 2, "error": "timeout"}]).column_names
print("columns by pyarrow from_pylist of two rows, the second with an error:", ", ".join(second_row))

dropped = [reader for reader, names in columns.items() if "error" not in names]
if not (duck_sum < true_sum and duck_max == 2 and polars_refuses and len(dropped) == 4 and second_row == ["id"]):
    sys.exit("no longer so: late decimals and late fields are read")
PY
