"""locust-plugins' KafkaUser: one record a call, as its own example has it. It knows no Redis."""

import os

from locust import task
from locust_plugins.users.kafka import KafkaUser

VALUE = b"x" * 300


class Publisher(KafkaUser):
    bootstrap_servers = os.environ["BENCH_KAFKA"]

    @task
    def send(self):
        self.client.send(os.environ["BENCH_TOPIC"], VALUE, key=b"owner/repo")
