"""The options of the process, from layered text to ProcessSettings and the `--backend` route."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from stickyproxy.config.fields import tuning
from stickyproxy.config.fields.balancer import parse_sticky
from stickyproxy.config.fields.grpc_web import cors_of_backends, parse_origin
from stickyproxy.config.fields.services import Overrides
from stickyproxy.config.process.layers import Given
from stickyproxy.config.process.settings import DEFAULT_ADMIN, IMPLICIT_PRECEDENCE, ProcessSettings
from stickyproxy.config.resources.resolution import ENABLE_ENDPOINTS, endpoints_enabled
from stickyproxy.config.schema.mapping import UPGRADES
from stickyproxy.config.text.addresses import (
    PROTOCOLS,
    default_port,
    parse_admin,
    parse_bind,
    parse_url,
    show_bind,
)
from stickyproxy.config.text.files import open_file
from stickyproxy.model import Bind, ClusterSpec, Route, RouteMatch, Target, UpstreamTls
from stickyproxy.rules import Upkeep

T = TypeVar("T")

CODECS = ("fast", "reference")
BACKENDS = "backends"

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123, as Kubernetes has it

_ON = frozenset(("on", "true", "yes", "1"))
_OFF = frozenset(("off", "false", "no", "0"))
_IN_MAPPINGS = {
    "policy": "load_balancer",
    "sticky": "load_balancer",
    "allow-upgrade": "allow_upgrade in Mappings",
    "backend-proxy-protocol": "proxy_protocol: v2 in Mappings",
    "idempotent": "idempotent: true in Mappings",
    "grpc-web": "the Module's enable_grpc_web",
    "cors-origin": "cors in Mappings",
}
"""What says the same where there are Mappings."""
MOST_WORKERS = 256  # a typo should not fork a machine to death


@dataclass(slots=True)
class Options:
    """Reads options; each complaint begins with the origin of what was said."""

    given: Mapping[str, Given]
    problems: list[str] = field(default_factory=list)

    def one(self, name: str, read: Callable[[str], T], default: T) -> T:
        """The option's value, the default if it was not given or is wrong."""
        given = self.given.get(name)
        if given is None:
            return default
        try:
            return read(given.last)
        except ValueError as exc:
            self.wrong(name, str(exc))
            return default

    def each(self, name: str, read: Callable[[str], T]) -> list[T]:
        """The values of an option that may be given several times, without the wrong ones."""
        found = []
        for text in self.given[name].values if name in self.given else ():
            try:
                found.append(read(text))
            except ValueError as exc:
                self.wrong(name, str(exc))
        return found

    def text(self, name: str) -> str | None:
        given = self.given.get(name)
        return given.last if given else None

    def wrong(self, name: str, message: str) -> None:
        given = self.given.get(name)
        self.problems.append(f"{given.origin if given else '--' + name}: {message}")


def process_settings(options: Options) -> ProcessSettings:
    """All but the backends; what is wrong is in `options.problems` and stands at its default."""
    base = ProcessSettings()
    cert, key = _tls_pair(options)
    delay, drain = _drain(options, base)
    nowhere: Bind | None = None
    admin: Bind | None = DEFAULT_ADMIN
    settings = ProcessSettings(
        binds=_binds(options, base.binds, tls=cert is not None),
        admin=options.one("admin", _beside(show_bind(DEFAULT_ADMIN)), admin),
        health=options.one("health", _beside("0.0.0.0:8081"), nowhere),
        workers=options.one("workers", _workers, base.workers),
        codec=options.one("codec", _one_of(*CODECS), base.codec),
        tls_cert=cert,
        tls_key=key,
        drain_delay=delay,
        drain_timeout=drain,
        max_connection_age=options.one("max-connection-age", _age(600), base.max_connection_age),
        max_connection_age_grace=options.one(
            "max-connection-age-grace", _age(60), base.max_connection_age_grace
        ),
        log_format=options.one("log-format", _one_of("json", "text"), base.log_format),
        access_log=options.one("access-log", _switch, base.access_log),
        backend_ca=options.one("backend-ca", _readable, None),
        backend_insecure=options.one("backend-insecure", _switch, base.backend_insecure),
        backend_proxy_protocol=options.one(
            "backend-proxy-protocol", _one_of("v2"), base.backend_proxy_protocol
        ),
        idempotent=options.one("idempotent", _switch, base.idempotent),
        dns_refresh=options.one("dns-refresh", _refresh, base.dns_refresh),
        max_concurrent_streams=options.one(
            "max-concurrent-streams", _number(1, 2**31 - 1), base.max_concurrent_streams
        ),
        max_header_list=options.one("max-header-list", _number(1024, 2**24), base.max_header_list),
        max_header_count=options.one(
            "max-header-count", _number(8, 100_000), base.max_header_count
        ),
        max_connections=options.one("max-connections", _limit, base.max_connections),
        max_connections_per_address=options.one(
            "max-connections-per-address", _limit, base.max_connections_per_address
        ),
        max_requests_per_connection=options.one(
            "max-requests-per-connection", _limit, base.max_requests_per_connection
        ),
        request_headers_timeout=_limited(
            options, "request-headers-timeout", base.request_headers_timeout
        ),
        request_body_timeout=_limited(options, "request-body-timeout", base.request_body_timeout),
        proxy_header_timeout=_limited(options, "proxy-header-timeout", base.proxy_header_timeout),
        tls_handshake_timeout=_limited(
            options, "tls-handshake-timeout", base.tls_handshake_timeout
        ),
        first_byte_timeout=_limited(options, "first-byte-timeout", base.first_byte_timeout),
        send_timeout=_limited(options, "send-timeout", base.send_timeout),
        max_unsent_output=options.one("max-unsent-output", _unsent, base.max_unsent_output),
        work_budget=options.one("work-budget", _budget, base.work_budget),
        work_refill=options.one("work-refill", _number(0, 1000), base.work_refill),
        max_memory=options.one("max-memory", _memory, base.max_memory),
        proxy_protocol_from=tuple(options.each("proxy-protocol-from", _network)),
        preserve_external_request_id=options.one(
            "preserve-external-request-id", _switch, base.preserve_external_request_id
        ),
        kubernetes=options.one("kubernetes", _switch, base.kubernetes),
        kubeconfig=options.one("kubeconfig", _readable, None),
        kube_context=options.text("kube-context"),
        kube_namespace=options.one("kube-namespace", _namespace, base.kube_namespace),
        ambassador_id=options.text("ambassador-id") or base.ambassador_id,
        kube_secrets=options.one("kube-secrets", _switch, base.kube_secrets),
        outlier_detection=options.one(
            "outlier-detection", tuning.outlier_detection, base.outlier_detection
        ),
        slow_start=options.one("slow-start", tuning.slow_start, base.slow_start),
        panic_threshold=options.one("panic-threshold", _number(0, 100), base.panic_threshold),
        connection_health=options.one("connection-health", _switch, base.connection_health),
        spare_connections=options.one("spare-connections", _number(0, 4), base.spare_connections),
        enable_endpoints=options.one(ENABLE_ENDPOINTS, endpoints_enabled, base.enable_endpoints),
    )
    _check_kubernetes(options, settings)
    _check_age(options, settings)
    _check_budget(options, settings)
    _check_addresses(options, settings)
    return settings


def _binds(options: Options, default: tuple[Bind, ...], *, tls: bool) -> tuple[Bind, ...]:
    """A key pair turns every bind without a scheme into https; a unix socket stays as it is."""
    binds = tuple(options.each("bind", parse_bind)) or default
    if not tls:
        if any(bind.protocol == "https" for bind in binds) and "tls-cert" not in options.given:
            options.wrong("bind", "https:// needs --tls-cert FILE and --tls-key FILE")
        return binds
    return tuple(
        replace(bind, protocol="https") if bind.protocol == "auto" and bind.kind != "unix" else bind
        for bind in binds
    )


def _tls_pair(options: Options) -> tuple[Path | None, Path | None]:
    cert, key = options.text("tls-cert"), options.text("tls-key")
    if cert is None and key is None:
        return None, None
    if cert is None or key is None:
        there, missing = ("tls-cert", "tls-key") if cert else ("tls-key", "tls-cert")
        options.wrong(there, f"needs --{missing} FILE beside it")
        return None, None
    before = len(options.problems)
    paths = options.one("tls-cert", _readable, None), options.one("tls-key", _readable, None)
    return paths if len(options.problems) == before else (None, None)


def _drain(options: Options, base: ProcessSettings) -> tuple[float, float]:
    """Delay and timeout. Where one is wrong, what is suggested fits the other."""
    before = len(options.problems)
    delay = options.one("drain-delay", _seconds(base.drain_delay), base.drain_delay)
    del options.problems[before:]  # said below, when the timeout is known
    timeout = options.one("drain-timeout", _seconds(_beyond(delay)), base.drain_timeout)
    delay = options.one("drain-delay", _seconds(_within(timeout)), base.drain_delay)
    if len(options.problems) == before:
        _check_drain(options, delay, timeout)
    return delay, timeout


def _beyond(delay: float) -> float:
    """A timeout for this delay: the default's 20 s for what is under way."""
    return min(delay + 20, _DAY)


def _within(timeout: float) -> float:
    """A delay for this timeout: the default's fifth of it."""
    return timeout / 5


def _check_drain(options: Options, delay: float, timeout: float) -> None:
    if delay < timeout or (delay, timeout) == (0, 0):
        return
    name = "drain-delay" if "drain-delay" in options.given else "drain-timeout"
    right = f"timeout {_beyond(delay):g}" if delay < _DAY else f"delay {_within(timeout):g}"
    options.wrong(
        name,
        f"the delay ({delay:g} s) is part of the timeout ({timeout:g} s) and must be less; "
        f"right would be --drain-{right}",
    )


def _check_age(options: Options, settings: ProcessSettings) -> None:
    if settings.max_connection_age_grace and "max-connection-age" not in options.given:
        message = "is the time after --max-connection-age; add that, right would be 600"
        options.wrong("max-connection-age-grace", message)


def _limited(options: Options, name: str, default: float) -> float:
    """Seconds, 0 for no limit."""
    return options.one(name, _age(default), default)


def _check_budget(options: Options, settings: ProcessSettings) -> None:
    if "work-refill" in options.given and not settings.work_budget:
        options.wrong("work-refill", "fills --work-budget again, which is off; right would be 100")


def _check_kubernetes(options: Options, settings: ProcessSettings) -> None:
    for name in () if settings.kubernetes else ("kubeconfig", "kube-context"):
        if name in options.given:
            options.wrong(name, "needs --kubernetes on beside it")


def _check_addresses(options: Options, settings: ProcessSettings) -> None:
    """The same fixed address twice can only fail later, with less to say."""
    taken: dict[tuple[str, str, int], str] = {}
    named = [("bind", bind) for bind in settings.binds]
    named += [("admin", settings.admin)] if settings.admin else []
    named += [("health", settings.health)] if settings.health else []
    for name, bind in named:
        if bind.kind == "tcp" and bind.port == 0:
            continue
        place = (bind.kind, bind.host or bind.path, max(bind.port, bind.fd))
        if place in taken:
            options.wrong(name, f"{show_bind(bind)} is taken by {taken[place]}; give another")
        taken.setdefault(place, name)


# --- backends -------------------------------------------------------------------------------------


def overrides(options: Options) -> Overrides:
    """`--service`, each time it was given."""
    found = Overrides()
    options.each("service", found.add)
    return found


def backend_route(
    options: Options, settings: ProcessSettings
) -> tuple[list[Route], list[ClusterSpec]]:
    """The catch-all of `--backend`, below every Mapping; nothing where no backend is given."""
    if "backend" not in options.given:
        for name, field_ in _IN_MAPPINGS.items():
            if name in options.given:
                options.wrong(name, f"is about backends; add --backend URL, or use {field_}")
        return [], []
    spec = _backends(options, settings)
    if spec is None:
        return [], []
    match = RouteMatch(path="/", precedence=IMPLICIT_PRECEDENCE)
    web = options.one("grpc-web", _switch, default=True) and spec.protocol.multiplexed
    origins = options.each("cors-origin", parse_origin)
    target = Target(
        name=BACKENDS,
        cluster=BACKENDS,
        grpc=spec.protocol.multiplexed,
        cors=cors_of_backends(origins, spec.load_balancer.hash, web=web),
        grpc_web=web,
        upgrades=options.one("allow-upgrade", _upgrades, ()),
        idempotent=settings.idempotent,
        origin=options.given["backend"].origin,
    )
    return [Route(BACKENDS, match, (target,))], [spec]


def _backends(options: Options, settings: ProcessSettings) -> ClusterSpec | None:
    right = "127.0.0.1:50051 or https://app.example.com"
    urls = options.each("backend", lambda text: parse_url(text, right))
    if not urls:
        return None
    protocols = {PROTOCOLS[url.scheme or "h2c"] for url in urls}
    if len(protocols) > 1:
        schemes = ", ".join(sorted({f"{url.scheme or 'h2c'}://" for url in urls}))
        options.wrong("backend", f"all need one scheme, these have {schemes}; use Mappings instead")
        return None
    protocol = protocols.pop()
    targets = tuple((url.host, url.port or default_port(protocol)) for url in urls)
    if len(set(targets)) < len(targets):
        options.wrong("backend", "the same address is given twice; keep one")
    try:
        balancer = parse_sticky(options.text("policy"), options.text("sticky"))
    except ValueError as exc:
        name, _, message = str(exc).partition(": ")
        options.wrong(name, message)
        return None
    return ClusterSpec(
        name=BACKENDS,
        service=BACKENDS,
        protocol=protocol,
        targets=targets,
        tls=_backend_tls(settings) if protocol.tls else None,
        load_balancer=balancer,
        upkeep=Upkeep(proxy_protocol=settings.backend_proxy_protocol),
    )


def _backend_tls(settings: ProcessSettings) -> UpstreamTls:
    ca_file = str(settings.backend_ca) if settings.backend_ca else None
    return UpstreamTls(verify=not settings.backend_insecure, ca_file=ca_file)


# --- readers of single values ---------------------------------------------------------------------


def _beside(right: str) -> Callable[[str], Bind | None]:
    """A port beside those for requests; `right` is an example."""

    def read(text: str) -> Bind | None:
        return None if text.lower() in _OFF - {"0"} else parse_admin(text, right)

    return read


def _upgrades(text: str) -> tuple[str, ...]:
    return (_one_of(*sorted(UPGRADES))(text.lower()),)


def _workers(text: str) -> int:
    return 0 if text == "auto" else _number(1, MOST_WORKERS)(text)


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"`{text}` is not known; right would be {' or '.join(names)}")
        return text

    return read


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal()) or not least <= int(text[:12]) <= most:
            bounds = f"{least}" if least == most else f"from {least} to {most}"
            raise ValueError(f"`{text}` is no whole number {bounds}")
        return int(text)

    return read


def _limit(text: str) -> int:
    """0: none."""
    return 0 if text.lower() in _OFF else _number(1, 2**31 - 1)(text)


def _unsent(text: str) -> int:
    """Bytes; 0: any number. Less than that would hold up those whose answers are large."""
    return 0 if text.lower() in _OFF else _number(1 << 18, 1 << 30)(text)


def _budget(text: str) -> int:
    """Milliseconds; 0: no limit."""
    return 0 if text.lower() in _OFF else _number(1, 60_000)(text)


_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_quantity = re.compile(r"([0-9]{1,12})(|k|M|G|Ki|Mi|Gi)").fullmatch
_LEAST_MEMORY = 64 << 20  # an idle worker has about 40 MiB


def _memory(text: str) -> int:
    """Bytes as Kubernetes writes them; 0: no mark, -1: what the machine or container suggests."""
    if text.lower() == "auto":
        return -1
    if text.lower() in _OFF:
        return 0
    found = _quantity(text)
    size = int(found[1]) * _UNITS[found[2]] if found else 0
    if size < _LEAST_MEMORY:
        raise ValueError(f"`{text}` is no size of at least 64Mi; right would be 512Mi, auto or off")
    return size


def _network(text: str) -> str:
    """`unix` are those who come by a unix socket."""
    if text == "unix":
        return text
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"`{text}` is no address or range; right would be 10.0.0.0/8") from None


_DAY = 86_400.0


def _seconds(right: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            seconds = float(text.removesuffix("s"))
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= _DAY:  # also refuses nan and inf
            message = f"`{text}` is no number of seconds up to a day; right would be {right:g}"
            raise ValueError(message)
        return seconds

    return read


def _age(right: float) -> Callable[[str], float]:
    """0: no limit."""
    read = _seconds(right)
    return lambda text: 0.0 if text.lower() in _OFF else read(text)


def _refresh(text: str) -> float:
    seconds = _seconds(5)(text)
    if seconds < 0.1:
        raise ValueError(f"`{text}` would ask DNS without pause; right would be 5")
    return seconds


def _namespace(text: str) -> str:
    """`all` is none by itself; who has a namespace of that name means every one by it."""
    if not _LABEL.fullmatch(text):
        raise ValueError(f"`{text}` is no namespace; right would be prod, or all")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in _ON | _OFF:
        raise ValueError(f"`{text}` is neither on nor off")
    return text.lower() in _ON


def _readable(text: str) -> Path:
    path = Path(text)
    try:
        with open_file(path):
            return path
    except OSError as exc:
        raise ValueError(f"{text} cannot be read: {exc.strerror}") from None
