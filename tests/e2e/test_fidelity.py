"""What your upstream said is what your client hears: every row is as it is without us in between.

`docs/conformance.md` has the table.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.dialogue import Backend, backend_of_frames
from support.fidelity import ROWS, Play, held
from support.proxy_process import ProxyProcess, running_proxy


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with backend_of_frames() as made:
        yield made


@pytest.fixture(scope="module", params=["fast", "reference"])
def proxy(request: pytest.FixtureRequest, backend: Backend) -> Iterator[ProxyProcess]:
    with running_proxy("--codec", request.param, "--backend", f"127.0.0.1:{backend.port}") as made:
        yield made
        assert [event for event in made.events if str(event["event"]).startswith("bug")] == []


@pytest.mark.parametrize("play", ROWS.values(), ids=ROWS.keys())
def test_both_sides_hear_what_they_hear_without_a_proxy(
    proxy: ProxyProcess, backend: Backend, play: Play
) -> None:
    with backend_of_frames() as other:
        direct = held(other, other.port, play)
    proxied = held(backend, proxy.port, play)

    assert proxied.client == direct.client
    assert proxied.backend == direct.backend
