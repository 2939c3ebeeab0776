"""What was aborted did not happen, and what is open is waited for, and said."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from dualstream_lab.kafka_log import partition_of
from dualstream_lab.stack import LocalStack
from tests.gateway.clients import joined, streaming
from tests.gateway.estate import estate, event_of, events_of, metric, producer, ready_of, until_ready, write
from tests.gateway.published import Published, ids, new_source
from tests.gateway.serving import until_so


async def test_committed_aborted_and_open_transactions(stack: LocalStack):
    """R7."""
    source, elsewhere = new_source(), new_source()
    while partition_of(elsewhere, 6) == partition_of(source, 6):
        elsewhere = new_source()
    with estate(stack, "tx") as made:
        topic = made.where["topic"]
        server = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        async with (
            producer(stack, transactional_id=uuid4().hex) as other,
            Published(made) as publish,
            joined(server.ws, source, elsewhere) as ear,
        ):
            for name in ("committed", "aborted"):
                await other.begin_transaction()
                (pos,) = await write(other, topic, source, name)
                await (other.commit_transaction() if name == "committed" else other.abort_transaction())
            assert await ear.receive(1, source) == ["committed"]
            await until_ready(server)
            page = await events_of(server, source, since="earliest")
            assert (page["events"], page["recovered"]) == (["committed"], True)
            assert (await event_of(server, id="aborted", source=source, pos=pos))[0] == 404
            async with streaming(server.url, source, since="earliest") as stream:
                assert stream.ids() == ["committed"]

            # An open one holds its partition back, and says so; others go on.
            await other.begin_transaction()
            await write(other, topic, source, "open")
            behind = ids(await publish(source, 2))
            beside = ids(await publish(elsewhere, 2))
            await ear.until(lambda: ear.ids(elsewhere) == beside)

            async def held() -> float:
                return await metric(server, "held_messages")

            await until_so(held, 3)
            status, parts = await ready_of(server)
            assert status == 200, parts
            assert "3 messages" in parts["open_transactions"]
            assert (await events_of(server, elsewhere, since="earliest"))["events"] == beside
            page = await events_of(server, source, since="earliest")
            assert (page["events"], page["recovered"]) == (["committed"], True), "all that is committed"
            await other.commit_transaction()
            await ear.until(lambda: {*ear.ids(source)} == {"committed", "open", *behind})
            assert len(ear.ids(source)) == 4
            await until_so(held, 0)

            async def page_now() -> list[str]:
                return (await events_of(server, source, since="earliest"))["events"]

            await until_so(page_now, ["committed", "open", *behind])
            assert "open_transactions" not in (await ready_of(server))[1]
