"""What every proxy of a measurement is asked to do, in words that each turns into its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

USER = "x-user-id"
"""The header that is hashed."""

LOG = "access.log"

MAGLEV, ROUND_ROBIN = "maglev", "round_robin"


@dataclass(frozen=True, slots=True)
class Job:
    """Listen on `port`, hash on USER over `backends`, both ports of loopback.

    `log`: write a line a request to `access_log`. `h1`: HTTP/1.1 to the backends, else HTTP/2 in
    cleartext. `tls`: certificate and key (PEM) for downstream. `timeout`: seconds a request may
    take, 0 for no limit. `folder` is the proxy's own. `workers`: processes or threads. `policy`
    MAGLEV or ROUND_ROBIN; only Envoy and stickyproxy can do other than one thread and MAGLEV.
    """

    folder: Path
    port: int
    admin: int
    backends: tuple[int, ...]
    log: bool = True
    h1: bool = False
    tls: tuple[Path, Path] | None = None
    timeout: float = 15.0
    workers: int = 1
    policy: str = MAGLEV

    @property
    def access_log(self) -> Path:
        return self.folder / LOG
