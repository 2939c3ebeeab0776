"""The load engine under Locust: the only room that imports it, and only in processes of Locust's.

A locustfile imports its users from here; that alone adds the options, the records, the statistics, the panel
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

from locust import events

from dualstream_lab.locust_bridge.controller import Controller
from dualstream_lab.locust_bridge.options import add_arguments
from dualstream_lab.locust_bridge.panel import add_panel
from dualstream_lab.locust_bridge.users import PublishingUser, SubscribingUser

if TYPE_CHECKING:
    from locust.env import Environment

__all__ = ["PublishingUser", "SubscribingUser"]


def _init(environment: Environment, **_: Any) -> None:
    # its retries in an outage are ours to count
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    listens = any(issubclass(user, SubscribingUser) for user in environment.user_classes)
    hears = any(issubclass(user, PublishingUser) and user.hears_itself for user in environment.user_classes)
    controller = Controller(environment, listens=listens, hears_itself=hears)
    environment.dualstream = controller  # type: ignore[attr-defined]
    if environment.web_ui is not None:
        add_panel(environment, controller)


events.init_command_line_parser.add_listener(add_arguments)  # type: ignore[no-untyped-call]
events.init.add_listener(_init)  # type: ignore[no-untyped-call]
