"""The fidelity matrix (`tests/support/fidelity.py`) through us, over cleartext and TLS."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from conformance.board.proxied import authority, proxied
from conformance.board.results import WAYS, Run, Suite, Way
from support.dialogue import backend_of_frames
from support.fidelity import ROWS, Outcome, Play, held, told

NAME = "fidelity matrix"


def play(way: Way, folder: Path) -> Iterator[Run]:
    began = time.monotonic()
    tls = authority(folder).client_context("h2") if way.tls else None
    with backend_of_frames() as backend:
        address = f"h2c://127.0.0.1:{backend.port}"
        with proxied(way, folder, "--backend", address) as proxy:
            found = {
                name: _wrong(direct(row), held(backend, proxy.port, row, tls=tls))
                for name, row in ROWS.items()
            }
    failed = {name: wrong for name, wrong in found.items() if wrong}
    yield Run(NAME, way, len(ROWS), failed, time.monotonic() - began)


def direct(row: Play) -> Outcome:
    """Client and backend face to face."""
    with backend_of_frames() as backend:
        return held(backend, backend.port, row)


def _wrong(wanted: Outcome, found: Outcome) -> str:
    if found == wanted:
        return ""
    if found.client != wanted.client:
        return f"the client heard {told(found.client)}, not {told(wanted.client)}"
    return f"the backend heard {told(found.backend)}, not {told(wanted.backend)}"


SUITE = Suite("fidelity", {NAME: "nghttpx 1.52 43"}, WAYS, [], play)
