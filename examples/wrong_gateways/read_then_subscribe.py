"""A wrong gateway: it reads a client's past, and then subscribes. Do not copy it.

What is wrong: an event that is published between the two is neither in what was read nor received. It is lost
for good, as nothing looks for it again. The store that is read lags a little behind Kafka, so even an event
that was announced shortly *before* the reading may be in neither.

    eval "$(dualstream up --detach)"; dualstream serve &
    python examples/wrong_gateways/read_then_subscribe.py 8081 http://127.0.0.1:8080 "$DUALSTREAM_REDIS_URL" &
    dualstream check-gateway http://127.0.0.1:8081
"""

from gateway import Gateway, serve


class ReadThenSubscribe(Gateway):
    """Reads first."""

    async def follow(self, source, since, tell):
        """A client's way: its past, then what comes."""
        cursor, past = await self.read(source, since)
        told = await self.tell_past(source, past, tell)
        # WRONG: what was announced until now, and was not in the store yet when that was read, is lost.
        with self.subscribed(source) as queue:
            await self.tell_on(source, cursor, told, queue, tell)


if __name__ == "__main__":
    serve(ReadThenSubscribe)
