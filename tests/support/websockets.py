"""What is said on WebSockets, in both forms of HTTP, for peers that speak by hand."""

from __future__ import annotations

from dataclasses import dataclass

from stickyproxy.model import Headers
from stickyproxy.policy.websocket import accept_of
from support.house import House
from support.peers import Call, Peer
from support.plan import Plan

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = b"\x11\x22\x33\x44"

DOWNSTREAMS = ("h1", "h2")
UPSTREAMS = ("http", "h2c")
WAYS = [(down, up) for down in DOWNSTREAMS for up in UPSTREAMS]
"""Who speaks what: client, backend."""


def asking(protocol: str, *more: tuple[bytes, bytes], path: bytes = b"/chat") -> Headers:
    """A good handshake of a client of `h1` or `h2`."""
    multiplexed = protocol == "h2"
    head = [
        (b":method", b"CONNECT" if multiplexed else b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"svc.example"),
        (b":path", path),
        (b":protocol", b"websocket"),
        (b"sec-websocket-version", b"13"),
    ]
    if not multiplexed:
        head.append((b"sec-websocket-key", KEY))
    return [*head, *more]


def accepting(got: Call, *more: tuple[bytes, bytes]) -> Headers:
    """A good answer of a backend to what it got."""
    key = dict(got.head).get(b"sec-websocket-key")
    if key is None:
        return [(b":status", b"200"), *more]
    return [(b":status", b"101"), (b"sec-websocket-accept", accept_of(key)), *more]


def frame(payload: bytes, opcode: int = 1, *, fin: bool = True, mask: bytes = b"") -> bytes:
    size, bit = len(payload), 0x80 if mask else 0
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + size.to_bytes(8, "big")
    if mask:
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return head + mask + payload


def close(code: int, mask: bytes = b"") -> bytes:
    return frame(code.to_bytes(2, "big"), 8, mask=mask)


def close_code(body: bytes | bytearray) -> int | None:
    """Of an unmasked Close frame that these bytes end with; None for none."""
    at = bytes(body).rfind(b"\x88")
    if at < 0 or len(body) - at < 4 or body[at + 1] != len(body) - at - 2:
        return None
    return int.from_bytes(body[at + 2 : at + 4], "big")


@dataclass
class Socket:
    """A WebSocket under way: `call` as its client sees it, `got` as its backend does."""

    house: House
    client: Peer
    call: Call
    got: Call

    @property
    def backend(self) -> Peer:
        return self.got.peer


def plan(upstream: str, **more: object) -> Plan:
    return Plan(upstream=upstream, upgrades=("websocket",), **more)  # type: ignore[arg-type]


async def connected(house: House, protocol: str) -> Socket:
    client = await house.client(protocol)
    seen = len(house.backend().arrived)
    call = client.request(asking(protocol))
    got = await house.backend().request(seen + 1)
    got.respond(accepting(got))
    await call.headed()
    return Socket(house, client, call, got)
