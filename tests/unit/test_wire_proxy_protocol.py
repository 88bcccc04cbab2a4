"""The PROXY header: both versions, read exactly, from those who must send it; nothing else is one."""

from __future__ import annotations

import struct

import pytest
import trio
from trio.testing import MemoryReceiveStream, memory_stream_pair

from stickyproxy.control.announcing import announcers
from stickyproxy.model import Connection
from stickyproxy.wire.proxy_protocol import (
    LOCAL,
    SIGNATURE,
    TIMEOUT,
    ProxyHeaderError,
    announced,
    header,
)
from support.clock import on_jumping_clock

BALANCER = Connection("192.0.2.1", 1000, "192.0.2.2", 443)
BEHIND = b"\x16\x03\x01 what follows is not ours to read"


def v2(command: int, family: int, addresses: bytes, tlvs: bytes = b"") -> bytes:
    rest = addresses + tlvs
    return SIGNATURE + struct.pack(">BBH", command, family, len(rest)) + rest


V4 = bytes((10, 1, 2, 3, 10, 9, 8, 7)) + struct.pack(">HH", 4321, 443)
V6 = bytes(15) + b"\x01" + bytes(15) + b"\x02" + struct.pack(">HH", 4321, 443)
MAPPED = (bytes(10) + b"\xff\xff\x0a\x01\x02\x03") * 2 + struct.pack(">HH", 4321, 443)
CLIENT = ("10.1.2.3", 4321, "10.9.8.7", 443)

GOOD: dict[str, tuple[bytes, tuple[str, int, str, int]]] = {
    "1, IPv4": (b"PROXY TCP4 10.1.2.3 10.9.8.7 4321 443\r\n", CLIENT),
    "1, IPv6": (b"PROXY TCP6 ::1 ::2 4321 443\r\n", ("::1", 4321, "::2", 443)),
    "2, IPv4": (v2(0x21, 0x11, V4), CLIENT),
    "2, IPv4 and more": (v2(0x21, 0x11, V4, b"\x04\x00\x03abc"), CLIENT),
    "2, IPv6": (v2(0x21, 0x21, V6), ("::1", 4321, "::2", 443)),
    "2, IPv4 in IPv6": (v2(0x21, 0x21, MAPPED), ("10.1.2.3", 4321, "10.1.2.3", 443)),
    "1, for itself": (b"PROXY UNKNOWN\r\n", ("192.0.2.1", 1000, "192.0.2.2", 443)),
    "1, unknown with junk": (b"PROXY UNKNOWN a b c\r\n", ("192.0.2.1", 1000, "192.0.2.2", 443)),
    "2, for itself": (v2(0x20, 0x00, b""), ("192.0.2.1", 1000, "192.0.2.2", 443)),
    "2, a unix socket's": (v2(0x21, 0x31, bytes(216)), ("192.0.2.1", 1000, "192.0.2.2", 443)),
}


async def told(said: bytes) -> tuple[Connection, bytes]:
    """What it makes of it, and the bytes that it left; they come one at a time."""
    here, there = memory_stream_pair()
    assert isinstance(here.receive_stream, MemoryReceiveStream)
    async with trio.open_nursery() as nursery:

        async def say() -> None:
            for at in range(len(said)):
                await there.send_all(said[at : at + 1])
            await there.send_eof()

        nursery.start_soon(say)
        connection = await announced(here, BALANCER)
    rest = b""
    while data := await here.receive_some():
        rest += data
    return connection, rest


@pytest.mark.parametrize(("said", "ends"), GOOD.values(), ids=GOOD)
async def test_a_header_is_read_to_its_last_byte(
    said: bytes, ends: tuple[str, int, str, int]
) -> None:
    connection, rest = await told(said + BEHIND)
    assert (
        *(connection.remote_ip, connection.remote_port),
        *(connection.local_ip, connection.local_port),
    ) == ends
    assert connection.client.ip == ends[0]
    assert rest == BEHIND


BAD = {
    "nothing": b"",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abcdefg",
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lower case": b"proxy tcp4 10.1.2.3 10.9.8.7 4321 443\r\n",
    "cut off": b"PROXY TCP4 10.1.2.3",
    "no end": b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
    "bare LF": b"PROXY TCP4 10.1.2.3 10.9.8.7 4321 443\nGET / HTTP/1.1\r\n",
    "two spaces": b"PROXY TCP4  10.1.2.3 10.9.8.7 4321 443\r\n",
    "no port": b"PROXY TCP4 10.1.2.3 10.9.8.7 4321\r\n",
    "too large a port": b"PROXY TCP4 10.1.2.3 10.9.8.7 4321 65536\r\n",
    "a signed port": b"PROXY TCP4 10.1.2.3 10.9.8.7 +4321 443\r\n",
    "another family": b"PROXY TCP4 ::1 ::2 4321 443\r\n",
    "a zone": b"PROXY TCP6 fe80::1%eth0 ::2 4321 443\r\n",
    "a name": b"PROXY TCP4 localhost 10.9.8.7 4321 443\r\n",
    "UDP": b"PROXY UDP4 10.1.2.3 10.9.8.7 4321 443\r\n",
    "version 3": v2(0x31, 0x11, V4),
    "unknown command": v2(0x22, 0x11, V4),
    "too short": v2(0x21, 0x11, V4[:-1]),
    "endless": SIGNATURE + struct.pack(">BBH", 0x21, 0x11, 65_535) + bytes(3000),
}


@pytest.mark.parametrize("said", BAD.values(), ids=BAD)
async def test_what_is_no_header_is_refused(said: bytes) -> None:
    here, there = memory_stream_pair()
    await there.send_all(said)
    await there.send_eof()
    with pytest.raises(ProxyHeaderError):
        await announced(here, BALANCER)


@on_jumping_clock
async def test_a_balancer_that_says_nothing_is_not_waited_for() -> None:
    here, _there = memory_stream_pair()
    begun = trio.current_time()
    with pytest.raises(ProxyHeaderError):
        await announced(here, BALANCER)
    assert trio.current_time() - begun == TIMEOUT


def test_who_must_begin_with_a_header() -> None:
    announces = announcers(["10.0.0.0/8", "::1/128"])
    assert [announces(ip) for ip in ("10.1.2.3", "::1", "11.0.0.1", "::2", "")] == [
        *(True, True, False, False, False)
    ]
    assert announcers(["unix"])("")
    assert not announcers([])("10.1.2.3")


# --- as we say it ---

FOUR, SIX = ("203.0.113.7", 4711), ("2001:db8::7", 4711)


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        (FOUR, ("192.0.2.1", 443)),
        (SIX, ("2001:db8::1", 443)),
        (FOUR, ("2001:db8::1", 65_535)),
        (SIX, ("192.0.2.1", 0)),
    ],
)
@on_jumping_clock
async def test_what_we_say_is_what_we_would_hear(
    remote: tuple[str, int], local: tuple[str, int]
) -> None:
    """Families that differ too: an IPv4 end is the same whichever way it is written."""
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(header(remote, local) + b"next")
    heard = await announced(here, Connection())

    assert (heard.remote_ip, heard.remote_port, heard.local_ip, heard.local_port) == (
        *remote,
        *local,
    )
    assert await here.receive_some() == b"next", "and not a byte more"


@on_jumping_clock
async def test_a_header_of_our_own_names_nobody() -> None:
    here, there = trio.testing.memory_stream_pair()
    await there.send_all(LOCAL)

    assert await announced(here, Connection("10.0.0.1", 1)) == Connection("10.0.0.1", 1)


def test_the_header_is_haproxys_to_the_byte() -> None:
    assert header(("203.0.113.7", 4711), ("198.51.100.1", 443)) == SIGNATURE + bytes.fromhex(
        "2111000ccb007107c6336401126701bb"
    )


@pytest.mark.parametrize("wrong", ["", "localhost", "1.2.3", "203.0.113.7:80"])
def test_what_is_no_address_is_no_header(wrong: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        header((wrong, 1), ("192.0.2.1", 443))
