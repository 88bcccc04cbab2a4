"""How much a link holds, and how long it waits."""

from __future__ import annotations

ROOM = 65_536
"""Bytes handed to the codec and not yet to the socket above which senders wait."""
RESERVE = 196_608
"""So many more go straight on (`codec.passage`) while the socket has taken all that it was given: with
them it is as much as one read brings, and is written in the same turn of the loop."""
OUTPUT_CAP = 262_144
"""Above it the reader waits too: a peer that makes us write and does not read (CVE-2019-9517)."""
LAST_FLUSH = 1.0
"""Seconds for our last words to leave and to be read (Envoy's delayed_close is 1 s)."""
WRITE_STALL = 60.0
"""Seconds for one send (up to some 100 KB, so 2 KB/s) before a peer that hardly reads is given up."""
DRAIN_PING = b"drain\0\0\0"
