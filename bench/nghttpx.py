"""nghttpx's command line for a Job.

It hashes only the client's address (or a cookie of its own), consistently: all calls of one machine
reach one backend.
"""

from __future__ import annotations

from bench.job import Job


def argv(binary: str, job: Job) -> list[str]:
    proto = "http/1.1" if job.h1 else "h2"
    seconds = f"{job.timeout or 3600:g}"
    return [
        binary,
        "--conf=/dev/null",
        "--workers=1",
        "--log-level=ERROR",
        f"--errorlog-file={job.folder}/said",
        f"--pid-file={job.folder}/pid",
        *([f"--accesslog-file={job.access_log}"] if job.log else []),
        f"--backend-read-timeout={seconds}",
        f"--stream-read-timeout={seconds}",
        "--frontend-http2-read-timeout=3600",
        f"--frontend=127.0.0.1,{job.port}" + ("" if job.tls else ";no-tls"),
        *(f"--backend=127.0.0.1,{port};;proto={proto};affinity=ip" for port in job.backends),
        *((str(job.tls[1]), str(job.tls[0])) if job.tls else ()),
    ]
