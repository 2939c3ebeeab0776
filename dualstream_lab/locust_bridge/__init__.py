"""The load engine under Locust: the only room that imports it, and only in processes of Locust's.

A locustfile imports its users from here; that alone adds the options, the records, the statistics, the tab
in the web UI and the exit codes::

    from locust import task
    from dualstream_lab.locust_bridge import PublishingUser


    class Publisher(PublishingUser):
        @task
        def publish(self):
            self.publish_next()
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import gevent
from locust import User, events

from dualstream_lab.locust_bridge.controller import Controller
from dualstream_lab.locust_bridge.options import add_arguments
from dualstream_lab.locust_bridge.statistics import add_tab
from dualstream_lab.recording import Outcome

if TYPE_CHECKING:
    from locust.env import Environment


__all__ = ["PublishingUser", "SubscribingUser"]


class PublishingUser(User):
    """One call in flight: the plan has as many at once as there are users.

    The plan, and not the users, says when what is sent; while every call waits for an answer, the next calls
    go out late, and their latency counts from when they were intended.
    """

    abstract = True
    measures_delivery = False
    """Whether its process also listens to everything (``--via``), and measures from intended to received what
    it published itself: on one clock, whatever the number of workers and machines.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.measures_delivery = cls.__dict__.get("hears_itself", cls.measures_delivery)  # its name of before

    def publish_next(self) -> tuple[int, Outcome] | None:
        """Wait for the next call of the plan, publish it, and wait until Kafka has it: (events, outcome).

        None when the plan is over: then the test is about to end.
        """
        done: tuple[int, Outcome] | None = _controller(self).publish_next()
        if done is None:
            gevent.sleep(1)
        return done


class SubscribingUser(User):
    """``--connections-per-user`` connections (``--via``), each subscribed to what ``--channels`` says."""

    abstract = True

    def on_start(self) -> None:
        """Subscribe, and return when all are subscribed."""
        _controller(self).subscribe()

    def listen(self) -> None:
        """A second of listening: what is received is counted and recorded by itself."""
        gevent.sleep(1)


def _controller(user: User) -> Controller:
    controller: Controller = user.environment.dualstream
    return controller


def _init(environment: Environment, **_: Any) -> None:
    # its retries in an outage are ours to count
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    listens = any(issubclass(user, SubscribingUser) for user in environment.user_classes)
    measures = any(
        issubclass(user, PublishingUser) and user.measures_delivery for user in environment.user_classes
    )
    controller = Controller(environment, listens=listens, measures_delivery=measures)
    environment.dualstream = controller  # type: ignore[attr-defined]
    if environment.web_ui is not None:
        add_tab(environment, lambda: controller.totals)


events.init_command_line_parser.add_listener(add_arguments)  # type: ignore[no-untyped-call]
events.init.add_listener(_init)  # type: ignore[no-untyped-call]
