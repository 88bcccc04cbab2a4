"""A TLS client that only asks for new keys: PORT KIND DATA. It reads nothing.

KIND is 1 if it wants the server's too; after each thousand it says one byte of DATA.

Run as a process of its own. Python's `ssl` has no word for it, so OpenSSL is asked directly, at the place
where CPython 3.11 to 3.14 keeps its connection; another build may not survive that, and says nothing then.
"""

from __future__ import annotations

import _ssl
import ctypes
import socket
import ssl
import sys
from typing import Any

AT_ONCE = 1000
READY = b"ready\n"


def updates(tls: Any, outgoing: ssl.MemoryBIO, kind: int, data: bytes) -> bytes:
    """`AT_ONCE` of them, sealed."""
    openssl = ctypes.CDLL(_ssl.__file__)
    openssl.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    openssl.SSL_do_handshake.argtypes = [ctypes.c_void_p]
    where = id(tls._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)
    connection = ctypes.c_void_p.from_address(where).value
    for _ in range(AT_ONCE):
        openssl.SSL_key_update(connection, kind)
        openssl.SSL_do_handshake(connection)
    if data:
        tls.write(data)
    return outgoing.read()


def main(port: int, kind: int, data: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65_536))
        sock.sendall(outgoing.read())
        flood = [updates(tls, outgoing, kind, data[at : at + 1]) for at in range(20)]
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()
        for some in flood:
            sock.sendall(some)
        while sock.recv(65_536):
            pass


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode())
