"""Many subscribers, on Redis itself or through a gateway, and a publisher for them.

    locust -f locustfiles/subscriber_fanout.py --headless --users 120 --connections-per-user 50
    … --channels hot       every connection on the most popular source
    … --channels uniform   connections spread evenly over the sources
    … --channels all       every connection receives everything, by a pattern
    … --slow 0.05          one in twenty reads slowly;   --stay 5   all come and go
    … --via ws             through the gateway of `dualstream serve` (--gateway URL), by WebSocket; or sse

On Redis, holes in a source's running number are counted as `live.skipped`. Through a gateway a connection
resumes with its cursor, and `live.gaps` counts the times that the gateway could not tell what was missed.
"""

from locust import task

from dualstream_lab.locust_bridge import PublishingUser, SubscribingUser


class Publisher(PublishingUser):
    fixed_count = 20

    @task
    def publish(self):
        self.publish_next()


class Subscriber(SubscribingUser):
    @task
    def receive(self):
        self.listen()
