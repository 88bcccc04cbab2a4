"""The PROXY protocol, versions 1 and 2, as a balancer before us speaks it (HAProxy's proxy-protocol.txt),

and version 2 as we speak it to backends.

The header is read exactly, not a byte more: what follows is TLS, and that is read by the handshake. A
sender that is trusted must begin with it: to look whether it did would let anybody else say so too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from stickyproxy.model import Connection

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"  # §2.2
LONGEST_LINE = 107  # §2.1, with its CR LF
LONGEST_REST = 2048
"""Bytes behind the fixed part of version 2: addresses are at most 216, what more there is are TLVs."""
TIMEOUT = 5.0
"""Seconds; a balancer sends it with its first segment (§2 asks for at least 3)."""

_LOCAL, _PROXY = 0x20, 0x21
LOCAL = SIGNATURE + bytes((_LOCAL, 0, 0, 0))
"""A header that names nobody (§2.2): a connection of our own, or a client without an address."""
_FAMILIES = {0x11: 4, 0x21: 16}  # TCP over IPv4, over IPv6; the others have no address for us

Read = Callable[[int], Awaitable[bytes]]
"""Exactly so many bytes; raises `ProxyHeaderError` if the sender ends before."""


class ProxyHeaderError(Exception):
    """There is no header, or it is none."""


async def announced(
    stream: trio.abc.Stream, connection: Connection, *, within: float = TIMEOUT
) -> Connection:
    """`connection` with the ends that the header names; as it is where it names none.

    Raises:
        ProxyHeaderError: what came is no header, or none came in time (`within` seconds).

    """

    async def read(size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await stream.receive_some(size - len(data))
            if not more:
                raise ProxyHeaderError("it ended within its PROXY header")
            data += more
        return data

    try:
        with trio.fail_after(within):
            ends = await read_header(read)
    except trio.TooSlowError:
        raise ProxyHeaderError(f"no PROXY header within {within:g} s") from None
    if ends is None:
        return connection
    remote, local = ends
    return replace(
        connection,
        remote_ip=remote[0],
        remote_port=remote[1],
        local_ip=local[0],
        local_port=local[1],
    )


End = tuple[str, int]


async def read_header(read: Read) -> tuple[End, End] | None:
    """The client's end and the one it connected to; None where the balancer speaks for itself."""
    begin = await read(len(SIGNATURE))
    if begin == SIGNATURE:
        return await _version_2(read)
    if begin.startswith(b"PROXY "):
        return _version_1(await _line(begin, read))
    raise ProxyHeaderError("no PROXY header where one must be")


async def _line(begin: bytes, read: Read) -> bytes:
    while not begin.endswith(b"\r\n"):
        if len(begin) >= LONGEST_LINE:
            raise ProxyHeaderError("a PROXY line without end")
        begin += await read(1)
    return begin[:-2]


def _version_1(line: bytes) -> tuple[End, End] | None:
    words = line.decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyHeaderError("a malformed PROXY line")
    _, family, source, destination, source_port, destination_port = words
    version = 4 if family == "TCP4" else 6
    return (
        (_address(source, version), _port(source_port)),
        (_address(destination, version), _port(destination_port)),
    )


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ProxyHeaderError("a malformed address in a PROXY header") from None
    if address.version != version or "%" in text:
        raise ProxyHeaderError("an address of another family in a PROXY header")
    return _plain(address)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An IPv4 client is the same whichever way it came."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(address)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > 65_535:
        raise ProxyHeaderError("a malformed port in a PROXY header")
    return int(text)


async def _version_2(read: Read) -> tuple[End, End] | None:
    command, family, high, low = await read(4)
    size = high << 8 | low
    if size > LONGEST_REST:
        raise ProxyHeaderError("a PROXY header without end")
    rest = await read(size)
    if command == _LOCAL:
        return None
    if command != _PROXY:
        raise ProxyHeaderError("a PROXY header of an unknown version or command")
    width = _FAMILIES.get(family)
    if width is None:
        return None
    if len(rest) < 2 * width + 4:
        raise ProxyHeaderError("a PROXY header too short for its addresses")
    ports = rest[2 * width : 2 * width + 4]
    return (
        (_packed(rest[:width]), int.from_bytes(ports[:2])),
        (_packed(rest[width : 2 * width]), int.from_bytes(ports[2:])),
    )


def _packed(octets: bytes) -> str:
    return _plain(ipaddress.ip_address(octets))


def header(remote: End, local: End) -> bytes:
    """Version 2, for a connection that `remote` made to `local`.

    Beside an IPv6 address an IPv4 one is written as IPv6 (`::ffff:`), for a header has one family.
    Raises `ValueError` for what is no address.
    """
    addresses = [ipaddress.ip_address(ip) for ip, _ in (remote, local)]
    width = max(len(address.packed) for address in addresses)
    family = next(family for family, size in _FAMILIES.items() if size == width)
    packed = [_mapped(one) if width == 16 else one.packed for one in addresses]
    rest = b"".join(packed) + b"".join(port.to_bytes(2) for _, port in (remote, local))
    return SIGNATURE + bytes((_PROXY, family)) + len(rest).to_bytes(2) + rest


def _mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
