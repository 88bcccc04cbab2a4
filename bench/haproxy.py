"""HAProxy's configuration for a Job."""

from __future__ import annotations

from bench.job import USER, Job
from bench.limits import affordable


def config(job: Job, *, files: int) -> str:
    """The log goes to HAProxy's stdout, which is `access_log`: it writes to no files itself.

    `files`: how many it may open; it reckons two for a connection and refuses to start with less.
    """
    proto = "" if job.h1 else "proto h2"
    tls = (
        f"ssl crt {job.folder}/both.pem alpn {'http/1.1' if job.h1 else 'h2'}" if job.tls else proto
    )
    servers = "\n".join(
        f"  server b{at} 127.0.0.1:{port} {proto}" for at, port in enumerate(job.backends)
    )
    log = "  log stdout format raw local0\n  option httplog" if job.log else ""
    return f"""global
  nbthread 1
  maxconn {affordable(20_000, files)}
defaults
  mode http
{log}
  timeout connect 3s
  timeout client 3600s
  timeout server {job.timeout or 3600:g}s
listen bench
  bind 127.0.0.1:{job.port} {tls}
  balance hdr({USER})
  hash-type consistent
{servers}
"""


def argv(binary: str, job: Job) -> list[str]:
    return [binary, "-db", "-q", "-f", str(job.folder / "haproxy.cfg")]
