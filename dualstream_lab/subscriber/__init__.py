"""The Python client of a gateway: catches up, stays, resumes after any drop, and says what it cannot recover.

::

    async for event in Subscriber("http://127.0.0.1:8080", source="repo:octo/hello"):
        print(event.id, event.type, event.data)
"""

from dualstream_lab.subscriber.client import Subscriber
from dualstream_lab.subscriber.received import Gap, Received, StreamGap, SubscriberStats

__all__ = ["Gap", "Received", "StreamGap", "Subscriber", "SubscriberStats"]
