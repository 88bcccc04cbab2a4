"""stickyproxy's own configuration for a Job."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.job import MAGLEV, USER, Job


def document(job: Job, backends: Sequence[int] | None = None) -> str:
    """A Mapping as YAML (JSON is YAML). `backends` instead of the Job's where they change."""
    ports = job.backends if backends is None else backends
    mapping = {
        "apiVersion": "ambassador/v1",
        "kind": "Mapping",
        "name": "bench",
        "prefix": "/",
        "rewrite": "",
        "grpc": not job.h1,
        "service": "bench:80",
        "endpoints": [f"127.0.0.1:{port}" for port in ports],
        "timeout_ms": round(job.timeout * 1000),
        "load_balancer": {"policy": job.policy}
        | ({"header": USER} if job.policy == MAGLEV else {}),
    }
    return json.dumps(mapping, indent=1) + "\n"


def argv(command: Sequence[str], job: Job) -> list[str]:
    """`command` is what comes before `run`. Drains are cut short: nobody waits for them here."""
    scheme = "https" if job.tls else "h2c"
    tls = ["--tls-cert", str(job.tls[0]), "--tls-key", str(job.tls[1])] if job.tls else []
    return [
        *command,
        "run",
        str(job.folder / "bench.yaml"),
        *("--bind", f"{'' if job.h1 else scheme + '://'}127.0.0.1:{job.port}"),
        *("--admin", f"127.0.0.1:{job.admin}"),
        *("--access-log", "on" if job.log else "off"),
        *("--workers", str(job.workers)),
        *("--drain-delay", "0"),
        *("--drain-timeout", "1"),
        *tls,
    ]
