"""`drain`: ask a running proxy, through its admin port, to finish and leave."""

from __future__ import annotations

import http.client
import time

from stickyproxy.cli.admin import ask
from stickyproxy.config.text.addresses import show_bind
from stickyproxy.model import Bind

_POLL_EVERY = 0.2  # seconds; short beside any drain delay


def drain(admin: Bind, *, wait: bool) -> str | None:
    """Start the drain; with `wait` return when nobody listens there any more.

    Returns what went wrong, or None.
    """
    try:
        status, said = ask(admin, "POST", "/drain_listeners")
    except (OSError, http.client.HTTPException) as exc:
        return f"no proxy answers at {show_bind(admin)}: {exc}"
    if status >= 300:
        return f"{show_bind(admin)} refused with status {status}: {said[:1000]}"
    while wait and _is_there(admin):
        time.sleep(_POLL_EVERY)
    return None


def _is_there(admin: Bind) -> bool:
    try:
        ask(admin, "GET", "/server_info")
    except TimeoutError:
        return True  # slow is not gone
    except (OSError, http.client.HTTPException):
        return False
    return True
