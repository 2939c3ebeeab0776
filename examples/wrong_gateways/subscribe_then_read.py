"""A wrong gateway: it subscribes first and reads a client's past then, but without a fence. Do not copy it.

What is wrong: what is read lags a little behind Kafka (here it is a cache before the query API, elsewhere a
replica, or a store that a consumer fills). An event that was announced before the client was subscribed, and
that is not there yet, is neither received nor read. It is lost for good, as nothing looks for it again. A
right gateway asks Kafka, after it is subscribed, where the log ends, and what it reads must be as far.

    eval "$(dualstream up --detach)"; dualstream serve &
    python examples/wrong_gateways/subscribe_then_read.py 8081 http://127.0.0.1:8080 "$DUALSTREAM_REDIS_URL" &
    dualstream check-gateway http://127.0.0.1:8081
"""

import time

from gateway import Gateway, serve

FRESH = 1.0  # s that an answer is kept


class SubscribeThenRead(Gateway):
    """Subscribes first, and asks nobody where the log ends."""

    def __init__(self, *where):
        super().__init__(*where)
        self.cache = {}  # what was asked: when, and the answer

    async def page(self, source, **query):
        """A moment old, perhaps."""
        asked = (source, *query.items())
        when, answer = self.cache.get(asked, (0.0, None))
        if time.monotonic() - when > FRESH:
            when, answer = time.monotonic(), await super().page(source, **query)
            self.cache[asked] = when, answer
        return answer

    async def follow(self, source, since, tell):
        """A client's way: what comes waits until its past is told."""
        with self.subscribed(source) as queue:
            # WRONG: what is read may not yet have what was announced before the line above.
            cursor, past = await self.read(source, since)
            told = await self.tell_past(source, past, tell)
            await self.tell_on(source, cursor, told, queue, tell)


if __name__ == "__main__":
    serve(SubscribeThenRead)
