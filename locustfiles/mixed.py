"""Both sides at once: publish, receive it live, and measure from intended to received on one clock.

    locust -f locustfiles/mixed.py --headless --rate 10000 --run-time 30s \\
        --threshold 'publish.errors==0' --threshold 'live.latency.p99<50ms'
    … --via ws     received through the gateway of `dualstream serve` (--gateway URL), not on Redis; or sse

Each process receives everything, and measures what it published itself, so that no two clocks are compared. A
missed threshold gives exit code 99.
"""

from locust import task

from dualstream_lab.locust_bridge import PublishingUser


class Publisher(PublishingUser):
    measures_delivery = True

    @task
    def publish(self):
        self.publish_next()
