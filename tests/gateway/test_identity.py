"""An event is known by its source and its id: sources may share ids, and ids be of all that is allowed."""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

import jwt
import pytest

from dualstream_lab.stack import LocalStack
from tests.gateway.clients import curl, joined, until_status
from tests.gateway.estate import estate, event_of, events_of
from tests.gateway.published import Published, new_source
from tests.gateway.serving import SECRET


async def test_the_same_id_in_two_sources(stack: LocalStack):
    """R2."""
    one, two = new_source(), new_source()
    with estate(stack, "same-id") as made:
        gateway = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        async with (
            Published(made) as publish,
            joined(gateway.ws, one) as a,
            joined(gateway.ws, two) as b,
        ):
            (of_one,) = await publish.named(one, "1", data="of a")
            (of_two,) = await publish.named(two, "1", data="of b")
            assert (await a.receive(1), await b.receive(1)) == (["1"], ["1"])
            await until_status(f"{gateway.url}/event?id=1&pos={of_two.pos}", 200)
            await until_status(f"{gateway.url}/event?id=1&pos={of_one.pos}", 200)
            for source, place, data in ((one, of_one, "of a"), (two, of_two, "of b")):
                for query in ({"source": source}, {"pos": place.pos}, {"source": source, "pos": place.pos}):
                    status, event = await event_of(gateway, id="1", **query)
                    assert (status, event["data"]) == (200, data), query
                assert (await events_of(gateway, source, since="earliest"))["events"] == ["1"]
            # Never another source's event, and never a guess.
            assert (await event_of(gateway, id="1", source=one, pos=of_two.pos))[0] == 404
            assert (await event_of(gateway, id="1", source=new_source()))[0] == 404
            assert (await event_of(gateway, id="2", pos=of_one.pos))[0] == 404
            for path in ("event?id=1", "events/1"):
                answer = await curl(f"{gateway.url}/{path}")
                assert answer.status == 400
                assert "2 sources" in answer.json["error"]
                assert "source=" in answer.json["error"]


async def test_what_is_written_twice_is_one_event_at_either_place(stack: LocalStack):
    source = new_source()
    with estate(stack, "twice") as made:
        gateway = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        async with Published(made) as publish:
            first, again = await publish.named(source, "x", data=1) + await publish.named(source, "x", data=2)
            answer = await until_status(f"{gateway.url}/event?id=x&source={source}&pos={again.pos}", 200)
            assert (answer.json["data"], answer.headers["x-position"]) == (1, first.pos)
            assert (await event_of(gateway, id="x", pos=again.pos))[0] == 404, "whose it is was not said"
            assert (await event_of(gateway, id="x"))[0] == 200


async def test_who_may_write_one_source_changes_no_other(stack: LocalStack):
    """F1: a forger publishes an id before the victim does."""
    forger, victim = f"repo:evil/{uuid4().hex[:8]}", f"repo:victim/{uuid4().hex[:8]}"

    def bearer(*patterns: str) -> tuple[str, str]:
        claims = {"exp": time.time() + 60, "read": list(patterns), "write": list(patterns)}
        return "-H", f"Authorization: Bearer {jwt.encode(claims, SECRET, 'HS256')}"

    with estate(stack, "forged", jwt_secret=SECRET) as made:
        gateway = await asyncio.to_thread(lambda: made.start("processor", "gateway"))
        headers = {"Authorization": bearer("repo:victim/*")[1].partition(": ")[2]}
        async with (
            Published(made) as publish,
            joined(gateway.ws, victim, additional_headers=headers) as ear,
        ):
            (forged,) = await publish.named(forger, "X", data="forged")
            (true,) = await publish.named(victim, "X", data="true")
            assert await ear.receive(1) == ["X"]
            assert next(ear.of("event"))["pos"] == true.pos
            may = bearer("repo:victim/*")
            for query in (f"&pos={true.pos}", f"&source={victim}", ""):
                answer = await curl(f"{gateway.url}/event?id=X{query}", *may)
                assert (answer.status, answer.json["data"]) == (200, "true"), query
            for query in (f"&source={forger}", f"&pos={forged.pos}"):
                answer = await curl(f"{gateway.url}/event?id=X{query}", *may)
                assert answer.status == 404, "what may not be read is not there"
            # Who may read both has to say which.
            assert (await curl(f"{gateway.url}/event?id=X", *bearer("*"))).status == 400


ALLOWED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\')


NAMES = "// a/b . .. ../.. {x} a{b % %2F 100%25 ? a?b=c # a#b & a&id=b + a+b = ; ' <script> ~ * | @: ,"


@pytest.mark.parametrize("name", [*NAMES.split(), ALLOWED, ALLOWED[::-1]])
async def test_every_id_that_is_allowed_is_found(plain, publish, source, name):
    """F2."""
    (place,) = await publish.named(source, name)
    await until_status(f"{plain.url}/event?id=_&pos={place.pos}", 404)  # stored, then
    for query in ({"pos": place.pos}, {"source": source}, {"source": source, "pos": place.pos}):
        status, event = await event_of(plain, id=name, **query)
        assert (status, event["id"]) == (200, name)
    assert (await events_of(plain, source, since="earliest"))["events"] == [name]
    async with joined(plain.ws, source, since="earliest") as ear:
        assert ear.ids() == [name]


def test_the_characters_of_an_id_are_all_here():
    assert len(ALLOWED) == 92
