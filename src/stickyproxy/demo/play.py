"""The demo as it goes: three servers, the proxy, the calls, the table, and what to try next.

Each server and the proxy is a process of its own, as in life; every port is one that the kernel had
free. Needs grpcio.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from stickyproxy.demo.calls import HEADER, USERS, Answers, call_everything
from stickyproxy.demo.children import Child, DemoError
from stickyproxy.demo.servers import SERVICE

BACKENDS = ("pod-1", "pod-2", "pod-3")


def play(*, once: bool) -> int:
    """Run it all; the exit code as `demo.main` tells it."""
    with _interruptible():
        try:
            with _family() as children:
                return _play(children, once=once)
        except DemoError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\ndemo: interrupted", file=sys.stderr)
            return 130  # 128 + SIGINT


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does, so that no child stays behind."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup meant it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _family() -> Iterator[list[Child]]:
    children: list[Child] = []
    try:
        yield children
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # ending is under way and bounded
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def _play(children: list[Child], *, once: bool) -> int:
    print("starting three gRPC servers, and the proxy in front ...", flush=True)
    servers = [_start(children, name, "stickyproxy.demo.servers", name) for name in BACKENDS]
    addresses = [server.address() for server in servers]
    proxy = _start(children, "the proxy", "stickyproxy", *_proxy_arguments(addresses))
    bind, admin = proxy.address(), proxy.address("admin_listening")
    try:
        answers = call_everything(bind)
    except ConnectionError as error:
        raise proxy.failure(f"failed a call: {error}") from error
    print("\n" + "\n".join(table(answers, addresses)), flush=True)
    if complaint := answers.complaint():
        raise DemoError(complaint)
    return 0 if once else _stay(proxy, "\n".join(_to_try(bind, admin, addresses)))


def _start(children: list[Child], name: str, *arguments: str) -> Child:
    child = Child(name, *arguments)
    children.append(child)
    return child


def _proxy_arguments(backends: Sequence[str]) -> list[str]:
    binds = ["--bind", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"]
    # One terminal, no load balancer in front that would have to notice: nothing to wait for.
    drain = ["--drain-delay", "0", "--drain-timeout", "1"]
    return ["run", *binds, *drain, *_backend_arguments(backends)]


def _backend_arguments(backends: Sequence[str]) -> list[str]:
    flags = [flag for backend in backends for flag in ("--backend", backend)]
    return [*flags, "--sticky", f"header:{HEADER}"]


def table(answers: Answers, addresses: Sequence[str]) -> list[str]:
    """Users down, backends across, counts in the cells."""
    rows = [
        ("", *BACKENDS),
        (HEADER, *addresses),
        *((user, *_cells(counts)) for user, counts in answers.by_user.items()),
        ("(none)", *_cells(answers.without)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))) for row in rows
    ]


def _cells(counts: Counter[str]) -> list[str]:
    return [str(counts[backend] or ".") for backend in BACKENDS]


def _to_try(bind: str, admin: str, backends: Sequence[str]) -> Iterator[str]:
    user = USERS[0]
    data = shlex.quote('{"text": "hi"}')
    explain = shlex.join([sys.executable, "-m", "stickyproxy", "explain"])
    yield ""
    yield "All is still running. With grpcurl (https://github.com/fullstorydev/grpcurl):"
    yield f"  grpcurl -plaintext {bind} list"
    yield f"  grpcurl -plaintext -H '{HEADER}: {user}' -d {data} {bind} {SERVICE}/Say"
    yield "With curl (an empty gRPC message is five zero bytes; see who answers in x-backend):"
    yield (
        "  printf '\\0\\0\\0\\0\\0' | curl -s --http2-prior-knowledge -D - -o /dev/null"
        f" -H 'content-type: application/grpc' -H 'te: trailers' -H '{HEADER}: {user}'"
        f" --data-binary @- http://{bind}/{SERVICE}/Say"
    )
    yield f"  curl -s http://{admin}/clusters"
    yield f"  curl -s http://{admin}/metrics"
    yield "Why that backend:"
    yield (
        f"  {explain} {shlex.join(_backend_arguments(backends))}"
        f" --method {SERVICE}/Say --header {HEADER}:{user}"
    )
    yield ""
    yield "The access log follows, one JSON line a stream. Ctrl-C ends everything."
    yield ""


def _stay(proxy: Child, to_try: str) -> int:
    print(to_try, flush=True)
    proxy.show = True
    try:
        proxy.process.wait()
    except KeyboardInterrupt:
        print("\ndemo: ending", file=sys.stderr)
        return 0
    raise proxy.failure("ended by itself")
