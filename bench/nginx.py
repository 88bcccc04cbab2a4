"""nginx's configuration for a Job."""

from __future__ import annotations

from bench.job import USER, Job

EVER = 1_000_000_000  # requests a connection may carry: the default ends it after 1,000


def config(job: Job, *, root: bool) -> str:
    """`root`: workers keep the master's user, since the files of the run are that user's."""
    servers = "\n".join(f"    server 127.0.0.1:{port};" for port in job.backends)
    listen = " ".join(["ssl"] * bool(job.tls) + ["http2"] * (not job.h1))
    seconds = f"{job.timeout or 3600:g}s"
    return f"""{"user root;" if root else ""}
daemon off;
worker_processes 1;
worker_rlimit_nofile 60000;
pid {job.folder}/nginx.pid;
error_log {job.folder}/said error;
events {{ worker_connections 30000; }}
http {{
  client_body_temp_path {job.folder}/body;
  proxy_temp_path {job.folder}/proxy;
  fastcgi_temp_path {job.folder}/fastcgi;
  uwsgi_temp_path {job.folder}/uwsgi;
  scgi_temp_path {job.folder}/scgi;
  access_log {f"{job.access_log} combined buffer=64k flush=1s" if job.log else "off"};
  keepalive_requests {EVER};
  keepalive_timeout 3600s;
  client_max_body_size 0;
  upstream bench {{
    hash $http_{USER.replace("-", "_")} consistent;
{servers}
    keepalive 512;
    keepalive_requests {EVER};
  }}
  server {{
    listen 127.0.0.1:{job.port} {listen};
{_tls(job)}    location / {{
{_pass(job, seconds)}    }}
  }}
}}
"""


def argv(binary: str, job: Job) -> list[str]:
    return [binary, "-e", str(job.folder / "said"), "-c", str(job.folder / "nginx.conf")]


def _tls(job: Job) -> str:
    if not job.tls:
        return ""
    return f"    ssl_certificate {job.tls[0]};\n    ssl_certificate_key {job.tls[1]};\n"


def _pass(job: Job, seconds: str) -> str:
    if job.h1:
        return (
            "      proxy_http_version 1.1;\n"
            '      proxy_set_header Connection "";\n'
            f"      proxy_read_timeout {seconds};\n"
            "      proxy_pass http://bench;\n"
        )
    return f"      grpc_read_timeout {seconds};\n      grpc_pass grpc://bench;\n"
