"""Which requests are mirrored, and the names of their copies."""

from __future__ import annotations

from random import Random

import pytest

from stickyproxy.policy.shadow import is_mirrored, shadow_authority
from stickyproxy.rules import Shadow


@pytest.mark.parametrize(
    ("authority", "copied"),
    [
        (b"shop.example", b"shop.example-shadow"),
        (b"shop.example:8080", b"shop.example-shadow:8080"),
        (b"10.0.0.1:80", b"10.0.0.1-shadow:80"),
        (b"[::1]:80", b"[::1]:80"),
        (b"", b""),
    ],
)
def test_a_copy_goes_by_the_name_of_its_host_with_a_suffix(authority: bytes, copied: bytes) -> None:
    assert shadow_authority(authority) == copied


def test_percent_is_the_share_of_requests() -> None:
    rng = Random(5)
    counts = {
        percent: sum(is_mirrored(Shadow("s", "c", percent), rng) for _ in range(4000))
        for percent in (0.0, 25.0, 100.0)
    }

    assert counts[0.0] == 0
    assert counts[100.0] == 4000
    assert 900 < counts[25.0] < 1100
