"""All certificates and keys of a configuration, loaded: for a thread, a thousand new ones take a second."""

from __future__ import annotations

import ssl

from stickyproxy import logs
from stickyproxy.config.load import Settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.edge import Pem
from stickyproxy.errors import ConfigError
from stickyproxy.model import UpstreamTls
from stickyproxy.wire.certificates import Certificates, make_certificates
from stickyproxy.wire.tls import client_tls_context, server_tls_context


def load_certificates(
    wanted: Settings, started: ProcessSettings, old: Certificates | None = None
) -> Certificates:
    """What clients are to meet; what backends meet is kept for the first connection.

    `started` are the settings of the start: files by other names (`--tls-cert`) need a restart. In a
    cluster a broken certificate is told of, once, and harms only those who meet it.

    Raises:
        ConfigError: files do not fit together.

    """
    broken = _upstream_problems(wanted)
    if broken and not wanted.process.kubernetes:
        raise ConfigError(list(dict.fromkeys(broken.values())))
    known = old.broken if old is not None else set()
    for problem in dict.fromkeys(said for tls, said in broken.items() if tls not in known):
        _tell(problem)
    made = make_certificates(wanted.front.tls, default_context(started), old, _tell)
    made.broken |= set(broken)
    return made


def default_context(process: ProcessSettings) -> ssl.SSLContext | None:
    """Of `--tls-cert` and `--tls-key`. Raises `ConfigError`."""
    if process.tls_cert is None or process.tls_key is None:
        return None
    return server_tls_context(str(process.tls_cert), str(process.tls_key))


def default_pair(process: ProcessSettings) -> tuple[Pem, Pem] | None:
    """The same as text, for another process. Raises `ConfigError`."""
    if process.tls_cert is None or process.tls_key is None:
        return None
    try:
        return Pem(process.tls_cert.read_bytes()), Pem(process.tls_key.read_bytes())
    except OSError as error:
        raise ConfigError([f"--tls-cert, --tls-key: {error.filename}: {error.strerror}"]) from None


def _upstream_problems(wanted: Settings) -> dict[UpstreamTls, str]:
    problems: dict[UpstreamTls, str] = {}
    for spec in wanted.clusters:
        if spec.tls is None or not spec.tls.name:
            continue
        try:
            client_tls_context(spec.tls, spec.protocol)
        except ConfigError as error:
            problems[spec.tls] = error.problems[0]
    return problems


def _tell(problem: str) -> None:
    logs.error("certificate_refused", problem=problem)
