"""The lab's name server: every name has the addresses of all backends, and answers may be slow.

    python -m chaos.names ADDRESS...

It says `ready`, and answers questions on port 53 of loopback. Each word on its stdin is answered by a line
with how many questions there were: `names-slow` has answers take SLOW from now on, `names-well` none.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
import struct
import sys
import time

SLOW = 3.0  # seconds: below the 5 after which resolvers ask again, above what anybody expects
HEADER = 12  # octets (RFC 1035 §4.1.1)
ADDRESS = 1  # the type A
TTL = 1  # seconds


def answer(question: bytes, addresses: list[str]) -> bytes:
    """All addresses for a question of type A; of other types there are none. b"" for what is no question."""
    end = question.find(b"\0", HEADER) + 5
    if len(question) < HEADER or end < HEADER + 5 or len(question) < end:
        return b""
    kind = int.from_bytes(question[end - 4 : end - 2])
    known = addresses if kind == ADDRESS else []
    head = question[:2] + struct.pack("!HHHHH", 0x8580, 1, len(known), 0, 0)
    rows = [
        struct.pack("!HHHIH", 0xC00C, ADDRESS, 1, TTL, 4) + socket.inet_aton(one) for one in known
    ]
    return head + question[HEADER:end] + b"".join(rows)


def main() -> None:
    addresses = sys.argv[1:]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 53))
    due: list[tuple[float, bytes, tuple[str, int]]] = []
    delay, questions = 0.0, 0
    print("ready", flush=True)
    while True:
        wait = max(0.0, due[0][0] - time.monotonic()) if due else None
        able, _, _ = select.select([sock, sys.stdin], [], [], wait)
        if sys.stdin in able:
            said = os.read(sys.stdin.fileno(), 4096).decode().split()
            if not said:
                return
            for word in said:
                delay = SLOW if word == "names-slow" else 0.0
                print(questions, flush=True)
        if sock in able:
            question, client = sock.recvfrom(512)
            questions += 1
            heapq.heappush(due, (time.monotonic() + delay, answer(question, addresses), client))
        while due and due[0][0] <= time.monotonic():
            _, told, client = heapq.heappop(due)
            sock.sendto(told, client)


if __name__ == "__main__":
    main()
