"""What several files of end-to-end tests aim at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.http_lab import Guarded, guarded_proxy


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    with guarded_proxy() as proxy:
        yield proxy


@pytest.fixture
def target(guarded: Guarded) -> Guarded:
    guarded.backend.requests.clear()
    return guarded
