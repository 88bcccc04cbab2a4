"""Settings of limits reach what they are about, each in its own unit; 0 is none."""

from __future__ import annotations

import math

from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.control.limits import allowance_of, conduct_of, patience_of
from stickyproxy.proxy.server import Patience
from stickyproxy.wire.bounds import DEFAULT, Allowance
from stickyproxy.wire.conduct import Conduct


def test_the_defaults_are_those_of_the_rooms() -> None:
    settings = ProcessSettings()

    assert allowance_of(settings) == DEFAULT
    assert patience_of(settings) == Patience()
    assert conduct_of(settings) == Conduct()


def test_each_setting_has_its_place_and_its_unit() -> None:
    settings = ProcessSettings(
        proxy_header_timeout=1.0,
        tls_handshake_timeout=2.0,
        first_byte_timeout=3.0,
        request_headers_timeout=4.0,
        max_requests_per_connection=5,
        send_timeout=6.0,
        max_unsent_output=300_000,
        work_budget=7,
        work_refill=8,
    )

    assert patience_of(settings) == Patience(announcement=1.0, handshake=2.0, first_byte=3.0)
    assert conduct_of(settings) == Conduct(head_timeout=4.0, most_requests=5, first_byte=3.0)
    assert allowance_of(settings) == Allowance(
        unsent=300_000, write_stall=6.0, work=7000, work_rate=8000
    )


def test_nothing_is_no_limit() -> None:
    none = ProcessSettings(
        proxy_header_timeout=0,
        tls_handshake_timeout=0,
        first_byte_timeout=0,
        send_timeout=0,
        max_unsent_output=0,
        work_budget=0,
    )

    assert patience_of(none) == Patience(math.inf, math.inf, math.inf)
    allowed = allowance_of(none)
    assert {allowed.unsent, allowed.write_stall, allowed.work} == {math.inf}
