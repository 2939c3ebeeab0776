#!/usr/bin/env bash
# tdigest: a percentile below the smallest value, and a median between two values nobody measured.
#
# One would expect: a t-digest is an approximation, good at the tails; whatever it answers lies between the minimum
# and the maximum, and where 99 % of all values are the same, every percentile up to 98 is that value.
# What happens: 9,900 latencies of 1 ms and 100 of 1,000 ms (each value one centroid) give p1 = -968 ms, p50 = 11 ms
# and p90 = 810 ms. The library draws a straight line from the centre of one centroid (rank 4,950) to the centre of
# the next (9,950), as if the values between were spread evenly, however heavy the two are; before the first centre
# the line just goes on, below the minimum. With all values different the same code is exact to half a rank, so tests
# on random floats see nothing.
# Since: tdigest 0.5.2.2 (the newest).
# Why it matters: latencies rounded to whole milliseconds are just such values (few different ones, many of each), and
# two clusters (cache hit and miss, before and during an outage) are what one measures for.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet tdigest==0.5.2.2

venv/bin/python - <<'PY'
import sys
from importlib.metadata import version

from tdigest import TDigest

values = [1] * 9900 + [1000] * 100
digest = TDigest()
digest.batch_update(values)
print("tdigest", version("tdigest"), "of", digest.n, "values:", "9,900 times 1 and 100 times 1,000")
print(f"{'percentile':>10} {'true':>6} {'tdigest':>9}")
seen = {}
for percentile in (1, 50, 90, 98, 99.5):
    true = sorted(values)[max(0, round(percentile / 100 * len(values)) - 1)]
    seen[percentile] = digest.percentile(percentile)
    print(f"{percentile:>10} {true:>6} {seen[percentile]:>9.2f}")
spread = TDigest()
spread.batch_update(range(1, 101))
print("1 to 100, each once: p50", spread.percentile(50), "p99", spread.percentile(99), "(as it should be)")

if not (seen[1] < 0 and seen[50] > 5 and seen[90] > 500):
    sys.exit("no longer so: the percentiles are within the values")
PY
