"""Publish batches through the dual publisher, when the plan says so.

    eval "$(dualstream up --detach)"
    locust -f locustfiles/batch_publish.py --headless --rate 20000 --batch-size 200 --run-time 30s
    locust -f locustfiles/batch_publish.py --processes 2      # web UI, two workers

Every user is a call that may be in flight at once. The plan, not the users, sets the rate.
"""

from locust import task

from dualstream_lab.locust_bridge import PublishingUser


class Publisher(PublishingUser):
    @task
    def publish_batch(self):
        self.publish_next()  # waits for the batch's time, and for Kafka's acknowledgement
