"""Kafka's own kafka-producer-perf-test, with records as long as ours. It waits for no call; no Redis."""

import re
import resource
import subprocess
import sys

from benchmarks.peers.common import Clock, Task
from dualstream_lab.stack.runtime import find_java

_ENVELOPE = 169  # bytes that our key and headers have more than a record without them
_DONE = re.compile(r"(\d+) records sent, ([\d.]+) records/sec")
_WARM_UP = 200_000


def main() -> None:
    task, jars = Task.read(), sys.argv[1]
    tool = [str(find_java().binary), "-Xmx512m", "-cp", jars, "org.apache.kafka.tools.ProducerPerformance"]
    size = [
        "--num-records", str(task.events), "--record-size", str(task.size + _ENVELOPE), "--throughput", "-1",
        "--warmup-records", str(min(_WARM_UP, task.events // 4)),
    ]  # fmt: skip
    where = ["--topic", task.topic, "--bootstrap-server", task.kafka]
    properties = ["acks=all", "batch.size=262144", "linger.ms=2", "buffer.memory=67108864"]
    given = [word for each in properties for word in ("--command-property", each)]
    clock = Clock()
    done = subprocess.run([*tool, *where, *size, *given], capture_output=True, text=True, check=False)
    found = _DONE.findall(done.stdout)
    if done.returncode or not found:
        sys.exit((done.stderr or done.stdout).strip() or "no figures")
    clock.cpu = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    clock.seconds = task.events / float(found[-1][1])
    clock.report(acked=task.events)


main()
