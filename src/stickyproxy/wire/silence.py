"""The last moment of a listener: nobody new, so that nobody is lost.

Between our last accept and the close of a listener the kernel completes further handshakes, and the
close resets them: clients that believed they were connected. (Under a storm of connects 17 drains
of 60 lost some.) A socket filter that drops SYN segments closes that gap. A client that is dropped
so asks again a second later, and is refused in words that it understands.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

import trio

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module does not name it
_FILTER = (  # classic BPF (linux/filter.h) over the TCP header: (code, jt, jf, k)
    (0x30, 0, 0, 13),  # load the byte of flags, RFC 9293 §3.1
    (0x54, 0, 0, 0x02),  # and SYN
    (0x15, 0, 1, 0),  # not set: next, else skip one
    (0x06, 0, 0, 0xFFFF_FFFF),  # pass all of it
    (0x06, 0, 0, 0),  # drop
)


def silence(listener: trio.SocketListener) -> None:
    """From now on no handshake begins; those that are done wait in the accept queue as before.

    It cannot be taken back: accept what is queued, and close. Only Linux can; elsewhere, and for a
    unix socket, nothing happens.
    """
    if sys.platform != "linux" or listener.socket.family not in (socket.AF_INET, socket.AF_INET6):
        return
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _FILTER)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(_FILTER), ctypes.addressof(kept))
    with contextlib.suppress(OSError):  # a sandbox that knows no filters: as without
        listener.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
