"""From settings to what each room wants to know of its limits. 0 is none there, infinity here."""

from __future__ import annotations

import math

from stickyproxy.codec.api import CodecLimits
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.proxy.server import Patience
from stickyproxy.wire.bounds import Allowance
from stickyproxy.wire.conduct import Conduct

MS = 1000
"""Microseconds, in which work is charged."""


def limits_of(settings: ProcessSettings) -> CodecLimits:
    return CodecLimits(
        max_concurrent_streams=settings.max_concurrent_streams,
        max_header_list=settings.max_header_list,
        max_header_count=settings.max_header_count,
    )


def allowance_of(settings: ProcessSettings) -> Allowance:
    return Allowance(
        unsent=settings.max_unsent_output or math.inf,
        write_stall=settings.send_timeout or math.inf,
        work=settings.work_budget * MS or math.inf,
        work_rate=settings.work_refill * MS,
    )


def patience_of(settings: ProcessSettings) -> Patience:
    return Patience(
        announcement=settings.proxy_header_timeout or math.inf,
        handshake=settings.tls_handshake_timeout or math.inf,
        first_byte=settings.first_byte_timeout or math.inf,
    )


def conduct_of(settings: ProcessSettings) -> Conduct:
    return Conduct(
        settings.request_headers_timeout,
        settings.max_requests_per_connection,
        settings.first_byte_timeout,
    )
