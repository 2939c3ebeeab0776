"""Both sides at once: publish, hear it on Redis, and measure from intended to heard on one clock.

    locust -f locustfiles/mixed.py --headless --rate 10000 --run-time 30s \
        --threshold 'publish.errors==0' --threshold 'live.latency.p99<50ms'

Each process hears what it published itself, so that no two clocks are compared. A missed threshold gives
exit code 99.
"""

from locust import events, task

from dualstream_lab.locust_bridge import PublishingUser, SubscribingUser


@events.init_command_line_parser.add_listener
def one_subscriber_hears_all(parser):
    parser.set_defaults(channels="all", connections_per_user=1)


class Publisher(PublishingUser):
    weight = 49

    @task
    def publish(self):
        self.publish_next()


class Subscriber(SubscribingUser):
    weight = 1

    @task
    def hear(self):
        self.listen()
