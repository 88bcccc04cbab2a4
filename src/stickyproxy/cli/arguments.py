"""Commands and flags: names are a contract, values stay text until `config` reads them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from stickyproxy.config.process.layers import OPTIONS

USAGE = """\
stickyproxy puts a sticky, gRPC-aware HTTP/2 proxy in front of your backends.

usage: stickyproxy COMMAND [OPTIONS]

  run       start the proxy (also when the first argument is a flag)
  check     read a configuration and show what it means
  explain   say which backend a request takes, and why
  demo      three real gRPC servers behind one proxy
  top       watch a running proxy
  drain     tell a running proxy to finish and leave
  version   print the version

try:
  stickyproxy demo
  stickyproxy --backend 127.0.0.1:50051 --backend 127.0.0.1:50052 --sticky header:x-user
  stickyproxy run mappings.yaml --service qotm=127.0.0.1:8001,127.0.0.1:8002
  stickyproxy COMMAND --help
"""

_BACKEND = (
    "[SCHEME://]HOST:PORT with h2c (default), h2, http, https, grpc, grpcs; repeatable; takes what "
    "no Mapping matches"
)

_FLAGS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "listening": (
        ("bind", "ADDR", "ADDR, [h2c|https]://ADDR, unix:PATH, fd://N; repeatable (0.0.0.0:8080)"),
        ("tls-cert", "FILE", "certificate chain in PEM; binds without a scheme become https://"),
        ("tls-key", "FILE", "its private key in PEM"),
        ("proxy-protocol-from", "NET", "balancers that send a PROXY header; repeatable (none)"),
        ("preserve-external-request-id", "on|off", "a stranger's x-request-id goes on (default off)"),
        ("admin", "ADDR", "admin port, or off (default 127.0.0.1:9901)"),
        ("health", "ADDR", "read-only part of the admin port, for kubelets and scrapers"),
    ),
    "backends": (
        ("backend", "URL", _BACKEND),
        ("service", "NAME=HOST:PORT[,...]", "where a Mapping's service lives; repeatable"),
        ("policy", "NAME", "of the backends: round_robin, least_request, ring_hash, maglev"),
        ("sticky", "KEY", "header:NAME, cookie:NAME[:TTL] or source-ip; without --policy maglev"),
        ("allow-upgrade", "NAME", "what a connection to the backends may become: websocket"),
        ("idempotent", "", "they may process a request twice: resend what a dead link lost, hedge"),
        ("grpc-web", "on|off", "browsers' gRPC-Web becomes gRPC for HTTP/2 backends (default on)"),
        ("cors-origin", "ORIGIN", "pages of it may call the backends, * is any; repeatable"),
        ("backend-ca", "FILE", "authorities in PEM that TLS backends are verified against"),
        ("backend-insecure", "", "do not verify TLS backends"),
        ("backend-proxy-protocol", "V", "v2: tell backends of each client by a PROXY header (none)"),
        ("dns-refresh", "S", "seconds between questions to DNS (default 5)"),
        ("outlier-detection", "WHAT", "off, or NAME=VALUE,... in Envoy's names (default on)"),
        ("slow-start", "S", "time in which who joined comes to its share, or off (default 10s)"),
        ("panic-threshold", "N", "percent that must be well, else all are used (default 30)"),
        ("connection-health", "on|off", "leave connections that go bad (default on)"),
        ("spare-connections", "N", "kept ready for each endpoint with traffic (default 1)"),
    ),
    "process": (
        ("workers", "N", "processes that serve, or auto: as many as cores (1)"),
        ("codec", "NAME", "HTTP/2 engine: fast (default) or reference"),
        ("drain-delay", "S", "seconds to go on accepting after SIGTERM (default 5)"),
        ("drain-timeout", "S", "seconds from SIGTERM to the end, the delay included (default 25)"),
        ("log-format", "FORMAT", "json (default) or text"),
        ("access-log", "on|off", "a line for each stream (default on)"),
    ),
    "kubernetes": (
        ("kubernetes", "on|off", "take pods and Ambassador's resources from the cluster (off)"),
        ("kubeconfig", "FILE", "how to reach it from outside (default: as kubectl; in a pod none)"),
        ("kube-context", "NAME", "context of the kubeconfig (default: its current one)"),
        ("kube-namespace", "NS|all", "where resources are read (default: our own, the context's)"),
        ("ambassador-id", "ID", "resources with another ambassador_id are not ours (default: default)"),
        ("kube-secrets", "on|off", "read Secrets for TLS (default on)"),
    ),
    "limits of a connection": (
        ("max-connection-age", "S", "seconds until it is sent away by GOAWAY, ±10 %% (default off)"),
        ("max-connection-age-grace", "S", "seconds after that until it is closed (default off)"),
        ("max-concurrent-streams", "N", "streams at a time (default 1024)"),
        ("max-header-list", "BYTES", "size of a header list (default 61440)"),
        ("max-header-count", "N", "fields of a header list (default 100)"),
        ("max-requests-per-connection", "N", "requests until it is sent away (default 1000000)"),
        ("request-headers-timeout", "S", "seconds for the head of a request (default 10)"),
        ("proxy-header-timeout", "S", "seconds for a PROXY header (default 5)"),
        ("tls-handshake-timeout", "S", "seconds for a TLS handshake (default 10)"),
        ("first-byte-timeout", "S", "seconds that a new connection may be silent (default 60)"),
        ("send-timeout", "S", "seconds for one send to a peer that hardly reads (default 60)"),
        ("max-unsent-output", "BYTES", "held for a peer that does not read (default 262144)"),
        ("work-budget", "MS", "CPU at once for what asks for nothing, then GOAWAY (default 100)"),
        ("work-refill", "MS", "CPU a second by which that is filled again (default 50)"),
        ("request-body-timeout", "S", "seconds between two parts of a body, not gRPC's (default 60)"),
    ),
    "limits of the process": (
        ("max-connections", "N", "connections of clients (default 50000)"),
        ("max-connections-per-address", "N", "of one client address (default 4096)"),
        ("max-memory", "SIZE", "of a worker, 512Mi or off: then 503, GOAWAY, the worst is closed (auto)"),
    ),
}  # fmt: skip

_PRECEDENCE = (
    "A flag wins over its variable STICKYPROXY_* (STICKYPROXY_BIND, lists by comma;\n"
    "STICKYPROXY_CONFIG for the files), that over the StickyProxy document, that over the default."
)


class UsageError(Exception):
    """The command line is wrong; the message is the line to show."""


class Parser(argparse.ArgumentParser):
    """argparse whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see {self.prog} --help")


def parser(command: str) -> Parser:
    """The parser of one command."""
    return _PARSERS[command]()


def parse(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Raises `UsageError`; files and flags may come in any order."""
    return parser(command).parse_intermixed_args(list(arguments))


def flags_of(options: argparse.Namespace) -> dict[str, list[str]]:
    """The process flags that were given, by option name."""
    return {
        name: values
        for name in OPTIONS
        if (values := getattr(options, name.replace("-", "_"), None))
    }


def _parser(command: str, what: str, examples: str, usage: str | None = None) -> Parser:
    """`usage` without the command, where argparse would list all flags once more."""
    return Parser(
        prog=f"stickyproxy {command}",
        usage=usage and f"stickyproxy {command} {usage}",
        description=what,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # an abbreviation breaks when a flag is added
    )


def _add_settings(made: Parser) -> None:
    made.add_argument(
        "config", nargs="*", type=Path, metavar="FILE", help="files or folders of documents"
    )
    for title, flags in _FLAGS.items():
        group = made.add_argument_group(title)
        for name, metavar, text in flags:
            if metavar:
                group.add_argument(f"--{name}", metavar=metavar, action="append", help=text)
            else:
                group.add_argument(f"--{name}", action="append_const", const="on", help=text)


def _run() -> Parser:
    made = _parser(
        "run",
        f"Start the proxy.\n\n{_PRECEDENCE}",
        "  stickyproxy run --backend 127.0.0.1:50051 --backend 127.0.0.1:50052\n"
        "  stickyproxy run --backend http://web:8080 --sticky cookie:session:3600s\n"
        "  stickyproxy run mappings/ --service qotm=127.0.0.1:8001,127.0.0.1:8002\n"
        "  stickyproxy run process.yaml mappings.yaml --tls-cert tls.crt --tls-key tls.key\n",
        "[OPTIONS] [FILE ...]",
    )
    _add_settings(made)
    made.add_argument(
        "--print-config", action="store_true", help="show what all of this means, and leave"
    )
    return made


def _check() -> Parser:
    made = _parser(
        "check",
        "Read a configuration, show its routes, clusters and warnings. Exit 0 if it is good, 2 if "
        "not.\nTakes the flags of run.",
        "  stickyproxy check mappings.yaml\n"
        "  stickyproxy check mappings/ --service qotm=127.0.0.1:8001\n",
        "[OPTIONS] [FILE ...]",
    )
    _add_settings(made)
    return made


def _explain() -> Parser:
    made = _parser(
        "explain",
        "Say which backend a request takes, and why, without sending it. Names are asked of DNS; "
        "all\nendpoints count as healthy. With --admin a running proxy is asked, which knows better. "
        "Exit 0\nif there is an answer, 1 if the request would fail. Takes the flags of run.",
        "  stickyproxy explain mappings.yaml --path /qotm/ --header 'cookie: sticky-cookie=abc'\n"
        "  stickyproxy explain --backend 10.0.0.1:50051 --backend 10.0.0.2:50051 \\\n"
        "      --sticky header:x-user --method helloworld.Greeter/SayHello --header x-user:alice\n"
        "  stickyproxy explain --admin 127.0.0.1:9901 --path / --header x-user:alice\n",
        "[OPTIONS] (--path PATH | --method pkg.Service/M) [FILE ...]",
    )
    _add_settings(made)
    group = made.add_argument_group("the request")
    which = group.add_mutually_exclusive_group(required=True)
    which.add_argument("--path", metavar="PATH", help="path, with its query")
    which.add_argument("--method", metavar="pkg.Service/M", help="gRPC method")
    group.add_argument("--header", metavar="K:V", action="append", help="header; repeatable")
    group.add_argument("--source-ip", metavar="IP", default="", help="address of the peer")
    group.add_argument("--authority", "--host", metavar="HOST", help="host of the request")
    group.add_argument("--http-method", metavar="M", help="default GET, for gRPC POST")
    group.add_argument("--tls", action="store_true", help="it comes over TLS")
    group.add_argument(
        "--port", metavar="N", type=int, help="port it comes in by, where there are Listeners"
    )
    made.add_argument(
        "--json",
        action="store_true",
        help="one JSON object: host, route, cluster, policy, key, hash, slot, endpoint, reason",
    )
    return made


def _demo() -> Parser:
    made = _parser(
        "demo",
        "Start three real gRPC servers and the proxy before them, make calls, show who answered.",
        "  stickyproxy demo\n  stickyproxy demo --once\n",
    )
    made.add_argument("--once", action="store_true", help="leave after the table")
    return made


def _drain() -> Parser:
    made = _parser(
        "drain",
        "Tell a running proxy to finish its streams and leave, as SIGTERM does.",
        "  stickyproxy drain --wait\n  stickyproxy drain --admin 127.0.0.1:9902\n",
    )
    made.add_argument("--admin", metavar="ADDR", help="its admin port (default 127.0.0.1:9901)")
    made.add_argument("--wait", action="store_true", help="return when it is gone")
    return made


def _top() -> Parser:
    made = _parser(
        "top",
        "Watch a running proxy: clusters and endpoints, calls, latencies, and what changes.",
        "  stickyproxy top\n  stickyproxy top --admin 127.0.0.1:9902 --once\n",
    )
    made.add_argument("--admin", metavar="ADDR", help="its admin port (default 127.0.0.1:9901)")
    made.add_argument("--once", action="store_true", help="one look, then leave")
    return made


def _version() -> Parser:
    return _parser("version", "Print the version.", "  stickyproxy version\n")


_PARSERS: dict[str, Callable[[], Parser]] = {
    "run": _run,
    "check": _check,
    "explain": _explain,
    "demo": _demo,
    "top": _top,
    "drain": _drain,
    "version": _version,
}
COMMANDS = tuple(_PARSERS)
