"""Publish events one by one: what a service does that has one event at a time.

    locust -f locustfiles/single_publish.py --headless --rate 5000 --users 200 --run-time 30s

Give as many users as events are open at once: the rate times the latency, and some to spare.
"""

from locust import events, task

from dualstream_lab.locust_bridge import PublishingUser


@events.init_command_line_parser.add_listener
def one_event_a_call(parser):
    parser.set_defaults(batch_size=1, rate=2000)


class SinglePublisher(PublishingUser):
    @task
    def publish_one(self):
        self.publish_next()
