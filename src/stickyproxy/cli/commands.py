"""The commands: arguments in, exit code out. 0 good, 1 failed while running, 2 could not start."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from stickyproxy import __version__
from stickyproxy.cli.arguments import COMMANDS, USAGE, UsageError, flags_of, parse
from stickyproxy.cli.explain import resolve_name, world_of
from stickyproxy.cli.front import front_tables, warnings_of
from stickyproxy.cli.settings import config_paths, print_config, read_settings, table
from stickyproxy.config.load import Settings
from stickyproxy.config.text.addresses import show_bind
from stickyproxy.control.explain import Answer, Request, explain, head_of, lines
from stickyproxy.errors import ConfigError
from stickyproxy.model import Bind


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _command(arguments)
    except SystemExit as exc:  # argparse, after --help
        return exc.code if isinstance(exc.code, int) else 2
    except UsageError as exc:
        _tell(str(exc))
    except ConfigError as exc:
        for problem in exc.problems:
            _tell(problem)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell says it
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 (the exit flush must not fail)
        return 1
    return 2


def _command(arguments: list[str]) -> int:
    if not arguments:
        if _in_environment():
            return _run(parse("run", []))
        _tell(USAGE.rstrip())
        return 2
    first = arguments[0]
    if first in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    if first == "--version":
        first = "version"
    elif first == "--demo":  # what people type after Ambassador's image
        first = "demo"
    elif first.startswith("-"):
        return _run(parse("run", arguments))
    if first not in COMMANDS:
        known = ", ".join(COMMANDS)
        hint = f"; to use a file: stickyproxy run {first}" if "." in first or "/" in first else ""
        raise UsageError(f"stickyproxy: {first} is no command, there are {known}{hint}")
    return _COMMANDS[first](parse(first, arguments[1:]))


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _settings(options: argparse.Namespace) -> Settings:
    return read_settings(options.config, flags_of(options), os.environ)


def _require_something(options: argparse.Namespace, command: str) -> None:
    said = options.config or options.backend or options.kubernetes
    if not said and not _in_environment():
        raise UsageError(
            f"stickyproxy {command}: nothing to route to: give --backend URL, a file of Mappings "
            f"or --kubernetes on; see stickyproxy {command} --help"
        )


def _in_environment() -> bool:
    """Whether variables alone say where to route to."""
    names = ("STICKYPROXY_BACKEND", "STICKYPROXY_KUBERNETES")
    return bool(config_paths(os.environ)) or any(name in os.environ for name in names)


def _run(options: argparse.Namespace) -> int:
    _require_something(options, "run")
    if options.print_config:
        print(print_config(_settings(options)))
        return 0
    from stickyproxy.control import supervisor  # noqa: PLC0415 (the other commands need no trio)

    return supervisor.run(lambda: _settings(options))


def _check(options: argparse.Namespace) -> int:
    _require_something(options, "check")
    try:
        settings = _settings(options)
    except ConfigError as exc:
        exc.problems += [f"warning: {warning}" for warning in exc.warnings]
        raise
    from stickyproxy.control.keys import load_certificates  # noqa: PLC0415 - `version` needs no trio

    load_certificates(settings, settings.process)
    print("\n".join([*table(settings), *front_tables(settings.front)]))
    warnings = warnings_of(settings)
    for warning in warnings:
        print(f"warning: {warning}")
    count = len(warnings)
    print(f"ok, {count} warning{'s'[: count != 1]}" if count else "ok")
    return 0


def _explain(options: argparse.Namespace) -> int:
    if options.admin:
        return _explain_there(options)
    _require_something(options, "explain")
    settings = _settings(options)
    try:
        answer, reaches = explain(settings, _request(options), world_of(resolve_name))
    except ValueError as exc:
        raise UsageError(f"stickyproxy explain: {exc}") from None
    return _print_answer(options, answer, reaches=reaches)


def _request(options: argparse.Namespace) -> Request:
    return Request(
        path=options.path,
        grpc_method=options.method,
        headers=options.header or (),
        source_ip=options.source_ip,
        authority=options.authority,
        http_method=options.http_method,
        tls=options.tls,
        port=options.port,
    )


def _explain_there(options: argparse.Namespace) -> int:
    """On the tables of a running proxy, and with the health that it knows of."""
    admin = _admin(options, "explain")
    from stickyproxy.cli.admin import UnreachableError, get  # noqa: PLC0415 (the admin port's modules)
    from stickyproxy.control.live.ask import query_of  # noqa: PLC0415 (as above)

    try:
        head_of(_request(options))
        status, text = get(admin, f"/explain?{query_of(_request(options))}")
    except ValueError as exc:
        raise UsageError(f"stickyproxy explain: {exc}") from None
    except UnreachableError as exc:
        _tell(f"stickyproxy explain: {exc}")
        return 1
    if status != _OK:
        _tell(
            f"stickyproxy explain: {show_bind(admin)} said {status}: {' '.join(text.split())[:200]}"
        )
        return 1
    try:
        said = json.loads(text)
        reaches, answer = bool(said.pop("reaches")), Answer(**said)
    except (ValueError, AttributeError, KeyError, TypeError):
        _tell(
            f"stickyproxy explain: what answers at {show_bind(admin)} is no admin port of stickyproxy"
        )
        return 1
    return _print_answer(options, answer, reaches=reaches)


_OK = 200


def _print_answer(options: argparse.Namespace, answer: Answer, *, reaches: bool) -> int:
    print(json.dumps(asdict(answer)) if options.json else "\n".join(lines(answer)))
    return 0 if reaches else 1


def _admin(options: argparse.Namespace, command: str) -> Bind:
    from stickyproxy.cli.admin import admin_of  # noqa: PLC0415 (brings the admin port's modules)

    said = options.admin[-1] if isinstance(options.admin, list) else options.admin
    try:
        return admin_of(said)
    except ValueError as exc:
        raise UsageError(f"stickyproxy {command}: --admin: {exc}") from None


def _demo(options: argparse.Namespace) -> int:
    from stickyproxy import demo  # noqa: PLC0415 (needs the extra `demo`, says so itself)

    return demo.main(options.once)


def _drain(options: argparse.Namespace) -> int:
    admin = _admin(options, "drain")
    from stickyproxy.cli.drain import drain  # noqa: PLC0415 (brings the admin port's modules)

    return _told("drain", drain(admin, wait=options.wait))


def _top(options: argparse.Namespace) -> int:
    admin = _admin(options, "top")
    if importlib.util.find_spec("rich") is None:
        _tell("stickyproxy top: it needs the package rich: pip install 'stickyproxy[top]'")
        return 2
    from stickyproxy.cli.top import top  # noqa: PLC0415 (needs the extra `top`)

    return _told("top", top(admin, once=options.once))


def _told(command: str, problem: str | None) -> int:
    if problem is not None:
        _tell(f"stickyproxy {command}: {problem}")
    return 0 if problem is None else 1


def _version(_options: argparse.Namespace) -> int:
    print(f"stickyproxy {__version__}")
    return 0


_COMMANDS = {
    "run": _run,
    "check": _check,
    "explain": _explain,
    "demo": _demo,
    "top": _top,
    "drain": _drain,
    "version": _version,
}
