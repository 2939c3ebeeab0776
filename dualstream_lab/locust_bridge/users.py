"""The users that a locustfile derives from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
from locust import User

if TYPE_CHECKING:
    from dualstream_lab.locust_bridge.controller import Controller
    from dualstream_lab.recording import Outcome

__all__ = ["DualStreamUser", "PublishingUser", "SubscribingUser"]


class DualStreamUser(User):
    """Knows its process's controller."""

    abstract = True

    @property
    def dualstream(self) -> Controller:
        """The engine of this process."""
        environment: Any = self.environment
        controller: Controller = environment.dualstream
        return controller


class PublishingUser(DualStreamUser):
    """One lane of the plan: a call that can be open at once.

    The plan, and not the users, says when what is sent; while every lane waits for an answer, the next calls
    go out late, and their latency counts from when they were intended.
    """

    abstract = True
    hears_itself = False
    """Whether its process also listens to everything (``--via``), and measures from intended to heard what it
    published itself: on one clock, whatever the number of workers and machines."""

    def publish_next(self) -> tuple[int, Outcome] | None:
        """Wait for the next call of the plan, publish it, and wait until Kafka has it: (events, outcome).

        None when the plan is over: then the test is about to end.
        """
        done = self.dualstream.publish_next()
        if done is None:
            gevent.sleep(1)
        return done


class SubscribingUser(DualStreamUser):
    """``--connections-per-user`` connections (``--via``), each subscribed to what ``--channels`` says."""

    abstract = True

    def on_start(self) -> None:
        """Subscribe, and return when all are subscribed."""
        self.dualstream.subscribe()

    def listen(self) -> None:
        """A second of listening: what is heard is counted and recorded by itself."""
        gevent.sleep(1)
