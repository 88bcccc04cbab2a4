"""A link with delay between two network namespaces: a TUN device in each, and this process between.

    python -m chaos.delay NAMESPACE_A NAMESPACE_B DEVICE ADDRESS_A ADDRESS_B ONE_WAY_SECONDS

For kernels without netem. The delay is constant, order is kept, nothing is lost here. It costs about
15 us of CPU a packet. It says `ready`, and ends when it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import selectors
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
HALF_TICK = 0.0005  # epoll waits for whole milliseconds, rounded up: half of one is taken back
AT_ONCE = 64  # packets read in a turn before others are sent


def enter(namespace: str) -> None:
    """Of this thread. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/var/run/netns/{namespace}").open("rb") as opened:
        if libc.setns(opened.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def device(namespace: str, name: str, address: str, peer: str) -> int:
    """A TUN device with that address; it stays in its namespace, its descriptor is ours."""
    enter(namespace)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI)
    fcntl.ioctl(descriptor, TUNSETIFF, request)
    for command in (
        ("ip", "addr", "add", address, "peer", peer, "dev", name),
        ("ip", "link", "set", name, "up", "txqueuelen", "5000"),
    ):
        subprocess.run(command, check=True)
    return descriptor


def carry(first: int, second: int, delay: float) -> None:
    """For ever, what one device is sent goes out of the other `delay` seconds later."""
    other = {first: second, second: first}
    held: deque[tuple[float, int, bytes]] = deque()
    selector = selectors.DefaultSelector()
    for descriptor in other:
        selector.register(descriptor, selectors.EVENT_READ)
    while True:
        now = time.monotonic()
        while held and held[0][0] <= now:
            _, descriptor, packet = held.popleft()
            with contextlib.suppress(OSError):
                os.write(descriptor, packet)
        wait = max(0.0, held[0][0] - time.monotonic()) if held else None
        for key, _ in selector.select(wait):
            due = time.monotonic() + delay - HALF_TICK
            with contextlib.suppress(BlockingIOError):
                for _ in range(AT_ONCE):
                    held.append((due, other[key.fd], os.read(key.fd, 65536)))


def main() -> None:
    first, second, name, ours, theirs, seconds = sys.argv[1:]
    descriptors = device(first, name, ours, theirs), device(second, name, theirs, ours)
    print("ready", flush=True)
    carry(*descriptors, float(seconds))


if __name__ == "__main__":
    main()
