"""WebSocket frames by boofuzz, run by ``fuzz`` where that is installed: HOST PORT FRAMES."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from typing import Any

from boofuzz import (  # type: ignore[import-not-found]  # installed for this run alone
    Block,
    Byte,
    Bytes,
    Request,
    Session,
    Static,
    String,
    Target,
    TCPSocketConnection,
)

_FRAMES = 10  # of one connection
_CLOSE = re.compile(rb"\x88[\x02-\x7d]([\x03\x11-\x13].)", re.DOTALL)  # 1000 to 1015, and our own from 4400
_PING, _PONG = b"\x89\x84\x00\x00\x00\x00last", b"\x8a\x04last"
_LONGEST = 0.5  # s for an answer to the last frame: where the fuzzer's lengths swallowed it there is none
_HANDSHAKE = (
    "GET /ws?source=repo:fuzz/1 HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_COMMANDS = ('{"subscribe":"', "repo:fuzz/", '","since":"', "earliest", '"}')


class _Frame(Block):  # type: ignore[misc]
    """Its length and mask are right, or the fuzzer's; what is in it is the fuzzer's."""

    def encode(self, value: Any, mutation_context: Any) -> bytes:  # noqa: ARG002  (boofuzz names it)
        body: bytes = self.get_child_data(mutation_context)
        first, body = body[:1], body[1:]
        if len(body) < 126:
            length = bytes([0x80 | len(body)])
        else:
            length = b"\xfe" + (len(body) & 0xFFFF).to_bytes(2, "big")
        return first + length + bytes(4) + body


def _request() -> Request:
    frames = []
    for number in range(_FRAMES):
        before, source, between, since, after = _COMMANDS
        frames.append(
            _Frame(
                f"frame {number}",
                children=(
                    Byte(f"first {number}", default_value=0x81, full_range=True),
                    Static(f"before {number}", before),
                    String(f"source {number}", default_value=f"{source}{number}", max_len=300),
                    Static(f"between {number}", between),
                    String(f"since {number}", default_value=since, max_len=300),
                    Static(f"after {number}", after),
                    Bytes(f"rest {number}", default_value=b" ", max_len=64),
                ),
            )
        )
    return Request("frames", children=(*frames, Bytes("ping", default_value=_PING, fuzzable=False)))


def main() -> None:
    host, port, most = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    closes: Counter[str] = Counter()
    shaken = 0

    def shake(target: Any, *_: object, **__: object) -> None:
        nonlocal shaken
        target.send(_HANDSHAKE.format(host=f"{host}:{port}").encode())
        answer = target.recv(4096)
        shaken += b" 101 " in answer[:20]

    def watch(target: Any, *_: object, **__: object) -> None:
        """Until all of it was dealt with: the server answers the last frame, closes, or waits for more."""
        data, more = b"", b"-"
        while more and _PONG not in data and not _CLOSE.search(data):
            more = target.recv(65536)
            data += more
        closed = _CLOSE.search(data)
        code = str(int.from_bytes(closed[1], "big")) if closed else "none"
        closes["open" if _PONG in data else code] += 1

    connection = TCPSocketConnection(host, port, recv_timeout=_LONGEST)
    session = Session(
        target=Target(connection=connection),
        pre_send_callbacks=[shake],
        post_test_case_callbacks=[watch],
        fuzz_loggers=[],
        receive_data_after_fuzz=False,
        check_data_received_each_request=False,
        reuse_target_connection=False,
        web_port=None,
        index_end=most // _FRAMES,
        db_filename=":memory:",
    )
    session.connect(_request())
    session.fuzz()
    cases = session.num_cases_actually_fuzzed
    print(json.dumps({"frames": cases * _FRAMES, "shaken": shaken, "closes": closes}))


if __name__ == "__main__":
    main()
