"""A wrong gateway: it subscribes first and reads a client's past then, but without a fence. Do not copy it.

What is wrong: the store that is read lags a little behind Kafka. An event that was announced before the
client was subscribed, and that the store does not have yet, is neither heard nor read. It is lost for good,
as nothing looks for it again. A right gateway asks Kafka, after it is subscribed, where the log ends, and
reads when the store has come that far.

    eval "$(dualstream up --detach)"; dualstream serve &
    python examples/wrong_gateways/subscribe_then_read.py 8081 http://127.0.0.1:8080 "$DUALSTREAM_REDIS_URL" &
    dualstream check-gateway http://127.0.0.1:8081
"""

from gateway import Gateway, serve


class SubscribeThenRead(Gateway):
    """Subscribes first, and asks nobody where the log ends."""

    async def follow(self, source, since, tell):
        """A client's way: what comes waits until its past is told."""
        with self.subscribed(source) as queue:
            # WRONG: the store may not yet have what was announced before the line above.
            cursor, past = await self.read(source, since)
            told = await self.tell_past(source, past, tell)
            await self.tell_on(source, cursor, told, queue, tell)


if __name__ == "__main__":
    serve(SubscribeThenRead)
