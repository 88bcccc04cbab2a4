"""How much a link holds, and how long it waits."""

from __future__ import annotations

import math
from dataclasses import dataclass

NEVER = math.inf

ROOM = 65_536
"""Bytes handed to the codec and not yet to the socket above which senders wait."""
RESERVE = 196_608
"""So many more go straight on (`codec.passage`) while the socket has taken all that it was given: with
them it is as much as one read brings, and is written in the same turn of the loop."""
OUTPUT_CAP = 262_144
"""Above it the reader waits too: a peer that makes us write and does not read (CVE-2019-9512, -9515, -9517).
It is what some 10,000 frames ask for that nobody needed."""
LAST_FLUSH = 1.0
"""Seconds for our last words to leave and to be read (Envoy's delayed_close is 1 s)."""
WRITE_STALL = 60.0
"""Seconds for one send (up to some 100 KB, so 2 KB/s) before a peer that hardly reads is given up (nginx's
send_timeout)."""
WORK = 100_000.0
"""Microseconds of CPU in one go, in vain: 1,500 cancelled requests or 10,000 PINGs."""
WORK_RATE = 50_000.0
"""Microseconds of CPU a second: 5 % of a core, twice what Envoy lets through before it calls it a rapid
reset (500 requests within a second)."""
DRAIN_PING = b"drain\0\0\0"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What people may set of it, for either side; `math.inf` is no limit.

    Nothing more is read of a peer that makes us say `unsent` bytes and does not read. One send takes
    `write_stall` seconds at most. What the peer makes us do in vain is paid out of `work` microseconds of
    CPU, refilled by `work_rate` of them a second.
    """

    unsent: float = OUTPUT_CAP
    write_stall: float = WRITE_STALL
    work: float = WORK
    work_rate: float = WORK_RATE


DEFAULT = Allowance()
