"""The commands: what they print, and how they end."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from stickyproxy import __version__
from stickyproxy.cli import main
from stickyproxy.cli.arguments import COMMANDS, parser
from stickyproxy.config.process.layers import OPTIONS
from stickyproxy.policy.maglev import MaglevTable
from support.written import DATA, mapping

QOTM = str(DATA / "qotm_ring_hash.yaml")
BACKENDS = ("--backend", "10.0.0.1:50051", "--backend", "10.0.0.2:50051")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKEND", "CONFIG", "ADMIN", "ADMIN_TOKEN"):
        monkeypatch.delenv(f"STICKYPROXY_{name}", raising=False)


class Ended:
    """How a command ended: exit code, lines on stdout, lines on stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.code = main(arguments)
        captured = capsys.readouterr()
        self.out, self.err = captured.out.splitlines(), captured.err.splitlines()


# --- the door -------------------------------------------------------------------------------------


def test_without_arguments_usage_is_shown_and_the_code_is_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = Ended(capsys)

    assert (ended.code, ended.out) == (2, [])
    assert all(any(command in line for line in ended.err) for command in COMMANDS)
    assert any("--backend 127.0.0.1:50051" in line for line in ended.err)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_examples(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    ended = Ended(capsys, command, "--help")

    assert ended.code == 0
    assert f"  stickyproxy {command}" in "\n".join(ended.out).partition("examples:")[2]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert Ended(capsys, "--help").code == 0
    for spelling in ("version", "--version"):
        ended = Ended(capsys, spelling)
        assert (ended.code, ended.out) == (0, [f"stickyproxy {__version__}"])


def test_every_option_is_a_flag_of_run_check_and_explain() -> None:
    for command in ("run", "check", "explain"):
        shown = parser(command).format_help()
        assert all(f"--{name}" in shown for name in OPTIONS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["fly"],
            "stickyproxy: fly is no command, there are run, check, explain, demo, top, drain, ve",
        ),
        (["a.yaml"], "; to use a file: stickyproxy run a.yaml"),
        (["run", "--bakcend", "a:1"], "stickyproxy run: unrecognized arguments: --bakcend"),
        (["run", "--backend"], "stickyproxy run: argument --backend: expected one argument; see"),
        (["--back", "a:1"], "stickyproxy run: unrecognized arguments: --back"),
        (["run"], "stickyproxy run: nothing to route to: give --backend URL, a file"),
        (["--workers", "1"], "stickyproxy run: nothing to route to"),
        (["--backend", "a:1", "--workers", "0"], "--workers: `0` is no whole number from 1 to 256"),
        (["check"], "stickyproxy check: nothing to route to"),
        (["check", "/none.yaml"], "/none.yaml: cannot be read: no such file or directory"),
        (["explain", *BACKENDS], "stickyproxy explain: one of the arguments --path --method is r"),
        (["explain", *BACKENDS, "--path", "x"], "stickyproxy explain: --path: `x` does not begin"),
        (["explain", *BACKENDS, "--method", "M"], "stickyproxy explain: --method: `M` is not pkg"),
        (
            ["explain", *BACKENDS, "--path", "/", "--header", "x"],
            "stickyproxy explain: --header: `x` is not NAME:VALUE; right would be x-user:alice",
        ),
        (
            ["explain", *BACKENDS, "--path", "/", "--source-ip", "x"],
            "stickyproxy explain: --source-ip: `x` is no IP address",
        ),
        (["drain", "--admin", "x"], "stickyproxy drain: --admin: `x` has no port"),
    ],
)
def test_wrong_use_is_one_line_and_the_code_is_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    ended = Ended(capsys, *arguments)

    assert (ended.code, ended.out) == (2, [])
    (line,) = ended.err
    assert said in line


def test_files_and_flags_come_in_any_order(capsys: pytest.CaptureFixture[str]) -> None:
    service = ("--service", "qotm=127.0.0.1:1")

    ways = [Ended(capsys, "check", *service, QOTM), Ended(capsys, "check", QOTM, *service)]

    assert ways[0].code == 0
    assert ways[0].out == ways[1].out


def test_the_environment_may_name_the_files(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STICKYPROXY_CONFIG", QOTM)

    assert "qotm_mapping" in "\n".join(Ended(capsys, "check").out)


def test_python_dash_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stickyproxy", "version"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"stickyproxy {__version__}\n"


# --- check ----------------------------------------------------------------------------------------


def test_check_shows_routes_clusters_policies_and_places(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = Ended(capsys, "check", QOTM, "--service", "qotm=127.0.0.1:1,127.0.0.1:2")

    assert ended.code == 0
    header, row, ok = ended.out
    assert header.split() == ["ROUTE", "MATCH", "CLUSTER", "POLICY", "WHERE", "FROM"]
    assert row.split() == [
        "qotm_mapping",
        "/qotm/*",
        "qotm",
        "ring_hash",
        "cookie:sticky-cookie:60s",
        "http",
        "127.0.0.1:1,127.0.0.1:2",
        f"{QOTM}:1",
    ]
    assert header.index("CLUSTER") == row.index("qotm  ")
    assert ok == "ok"


def test_check_shows_shares_conditions_and_warnings(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    same = {"hostname": "h.com", "method": "GET", "headers": "{x: '1'}", "regex_headers": "{y: .}"}
    path.write_text(
        mapping(name="a", weight="10", **same)
        + mapping(name="b", priority="high", service="b", **same)
    )

    ended = Ended(capsys, "check", str(path))

    assert "GET h.com /m/* x=1 y~." in ended.out[1]
    assert "svc 10%" in ended.out[1]
    assert "b 90%" in ended.out[2]
    assert ended.out[3:] == [
        f"warning: {path}:18: priority: is known and has no effect in this version",
        "ok, 1 warning",
    ]


def test_check_tells_every_problem_and_the_code_is_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(mapping(weight="x", timeout_ms="x"))

    ended = Ended(capsys, "check", str(path), "--workers", "300")

    assert (ended.code, ended.out) == (2, [])
    assert [line.partition(": must")[0] for line in ended.err[:2]] == [
        f"{path}:7: weight",
        f"{path}:8: timeout_ms",
    ]
    assert ended.err[2].startswith("--workers: `300`")


def test_check_warns_beside_problems_for_one_may_explain_the_other(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("apiVersion: ambassador/v1\nkind: Mapping\nname: m\nprefix: /\nserivce: a\n")

    ended = Ended(capsys, "check", str(path))

    assert (ended.code, ended.err) == (
        2,
        [
            f"{path}:1: service: is missing; right would be qotm",
            f"warning: {path}:5: serivce: is unknown and has no effect; did you mean service?",
        ],
    )


# --- the key pair ---------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    issued = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return cert, key


def test_a_key_pair_that_fits_is_taken(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path]
) -> None:
    flags = ("--tls-cert", str(pair[0]), "--tls-key", str(pair[1]))

    ended = Ended(capsys, "run", *BACKENDS, *flags, "--print-config")

    assert ended.code == 0
    assert '"https://0.0.0.0:8080"' in "\n".join(ended.out)


def test_a_key_of_another_certificate_is_one_line(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(other)

    ended = Ended(capsys, "run", *BACKENDS, "--tls-cert", str(pair[0]), "--tls-key", str(other))

    assert ended.code == 2
    (line,) = ended.err
    assert line.startswith(f"--tls-key: {other} is not the key of {pair[0]} (")


def test_files_that_hold_no_pem_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")

    for flags in (("--tls-cert", str(junk), "--tls-key", str(junk)), ("--backend-ca", str(junk))):
        ended = Ended(capsys, "check", *BACKENDS, *flags)
        assert ended.code == 2
        assert len(ended.err) == 1
        assert str(junk) in ended.err[0]


# --- run ------------------------------------------------------------------------------------------


def test_print_config_says_values_and_where_they_come_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STICKYPROXY_DRAIN_DELAY", "1")

    ended = Ended(capsys, *BACKENDS, "--bind", ":81", "--print-config")

    text = "\n".join(ended.out)
    shown = json.loads(text[: text.index("\n}") + 2])
    assert ended.code == 0
    assert shown["bind"] == {"value": ["0.0.0.0:81"], "from": "--bind"}
    assert shown["drain-delay"] == {"value": 1.0, "from": "STICKYPROXY_DRAIN_DELAY"}
    assert shown["admin"] == {"value": "127.0.0.1:9901", "from": "default"}


def test_a_port_that_is_taken_is_one_line_and_the_code_is_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "stickyproxy", "--backend", "127.0.0.1:1"]

        done = subprocess.run(
            [*command, "--bind", address, "--admin", "off"],
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert address in line


# --- explain --------------------------------------------------------------------------------------


def explained(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    ended = Ended(capsys, "explain", "--json", *arguments)
    (line,) = ended.out
    found: dict[str, object] = json.loads(line)
    assert list(found) == [
        *("host", "route", "cluster", "policy", "key", "hash", "slot", "endpoint", "reason"),
    ]
    return found


def test_explain_says_what_the_table_says(capsys: pytest.CaptureFixture[str]) -> None:
    sticky = ("--sticky", "header:X-User", "--header", "X-User: alice")

    found = explained(capsys, *BACKENDS, *sticky, "--method", "helloworld.Greeter/SayHello")

    keys = ["10.0.0.1:50051", "10.0.0.2:50051"]
    hash_ = found["hash"]
    assert isinstance(hash_, int)
    table = MaglevTable.build([(key, 1.0) for key in keys])
    assert found["endpoint"] == keys[table.lookup(hash_)]
    assert found["slot"] == hash_ % 65537
    assert (found["route"], found["cluster"], found["policy"], found["key"]) == (
        *("backends", "backends", "maglev", "alice"),
    )
    assert "key from header x-user" in str(found["reason"])


def test_explain_says_of_pods_that_only_the_cluster_knows_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "kind: Mapping\nname: m\nprefix: /\nservice: qotm.prod\n"
        "load_balancer: {policy: maglev, header: x-user}\n"
    )
    request = (str(config), "--kubernetes", "on", "--path", "/", "--header", "x-user:alice")

    found = explained(capsys, *request)

    assert (found["cluster"], found["key"], found["endpoint"]) == ("qotm.prod", "alice", None)
    assert str(found["reason"]).startswith("key from header x-user; one of the pods of qotm.prod;")
    shown = "\n".join(Ended(capsys, "check", str(config), "--kubernetes", "on").out)
    assert "http pods of qotm.prod" in shown


def test_explain_for_people_has_the_hash_in_hexadecimal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sticky = ("--sticky", "header:x-user", "--header", "x-user:alice")

    ended = Ended(capsys, "explain", *BACKENDS, *sticky, "--path", "/")

    shown = dict(line.split(maxsplit=1) for line in ended.out)
    decimal, hexadecimal = shown["hash"].split()
    assert int(decimal) == int(hexadecimal.strip("()"), 16)


def test_explain_follows_the_cookie_of_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    where = (QOTM, "--service", "qotm=127.0.0.1:1,127.0.0.1:2", "--path", "/qotm/quote?x")

    without = explained(capsys, *where)
    with_one = explained(capsys, *where, "--header", "cookie: a=b; sticky-cookie=abc")

    assert (without["hash"], without["endpoint"]) == (None, None)
    assert "no cookie sticky-cookie yet: one is made" in str(without["reason"])
    assert with_one["key"] == "abc"
    assert with_one["endpoint"] in ("127.0.0.1:1", "127.0.0.1:2")
    assert "path sent /quote?x" in str(with_one["reason"])


def test_explain_takes_the_source_ip(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (*BACKENDS, "--sticky", "source-ip", "--policy", "ring_hash", "--path", "/")

    assert explained(capsys, *flags, "--source-ip", "192.0.2.7")["key"] == "192.0.2.7"
    assert "(--source-ip)" in str(explained(capsys, *flags)["reason"])


def test_explain_says_that_spreading_policies_spread(capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(capsys, *BACKENDS, "--path", "/")

    assert (found["policy"], found["endpoint"]) == ("round_robin", None)
    assert "10.0.0.1:50051, 10.0.0.2:50051" in str(found["reason"])


def test_explain_lets_the_session_decide_in_a_weighted_group(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    balancer = "{policy: maglev, header: x-user}"
    path.write_text(
        mapping(name="a", endpoints="['10.0.0.1']", weight="50", load_balancer=balancer)
        + mapping(name="b", service="b", endpoints="['10.0.0.2']")
    )

    users = [
        explained(capsys, str(path), "--path", "/m/", "--header", f"x-user: {number}")
        for number in range(20)
    ]
    nobody = explained(capsys, str(path), "--path", "/m/")

    assert {user["cluster"] for user in users} == {"svc", "b"}
    assert nobody["cluster"] is None
    assert "a random cluster: svc 50%, b 50%" in str(nobody["reason"])


def test_explain_sees_host_method_and_headers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        mapping(hostname="a.com", method="PUT", endpoints="['10.0.0.1']", headers="{x: true}")
    )
    request = ("--path", "/m/", "--http-method", "PUT", "--header", "x:")

    assert explained(capsys, str(path), *request, "--host", "a.com:80")["route"] == "m"
    assert explained(capsys, str(path), *request, "--authority", "b.com")["route"] is None


def test_explain_says_when_nothing_matches_or_resolves(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(mapping(service="no-such-host.invalid"))

    nowhere = Ended(capsys, "explain", str(path), "--path", "/x")
    unknown = Ended(capsys, "explain", str(path), "--path", "/m/")
    past = Ended(capsys, "explain", str(path), "--path", "/m/../x")

    assert (nowhere.code, unknown.code, past.code) == (1, 1, 1)
    assert past.out[-1] == nowhere.out[-1]
    assert "no route matches" in nowhere.out[-1]
    assert "no-such-host.invalid" in unknown.out[-1]


def test_explain_resolves_names(capsys: pytest.CaptureFixture[str]) -> None:
    sticky = ("--sticky", "header:x", "--header", "x:1")

    found = explained(capsys, "--backend", "localhost:7", *sticky, "--path", "/")

    assert found["endpoint"] in ("127.0.0.1:7", "[::1]:7")


# --- drain ----------------------------------------------------------------------------------------


class Admin(http.server.ThreadingHTTPServer):
    """An admin port that leaves after it was asked for its state a few times."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _AdminHandler)
        self.asked: list[str] = []
        self.tokens: list[str | None] = []
        self.status = 200

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _AdminHandler(http.server.BaseHTTPRequestHandler):
    server: Admin

    def do_POST(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()
        if len(self.server.asked) >= 3:
            self.server.socket.close()
            threading.Thread(target=self.server.shutdown).start()

    def _answer(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        self.server.tokens.append(self.headers["x-stickyproxy-token"])
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(b"said\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
        pass


@pytest.fixture
def admin() -> Iterator[Admin]:
    server = Admin()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_drain_asks_the_admin_port_once(capsys: pytest.CaptureFixture[str], admin: Admin) -> None:
    ended = Ended(capsys, "drain", "--admin", admin.address)

    assert (ended.code, ended.err) == (0, [])
    assert admin.asked == ["POST /drain_listeners"]


def test_drain_waits_until_nobody_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, admin: Admin
) -> None:
    monkeypatch.setenv("STICKYPROXY_ADMIN", admin.address)
    monkeypatch.setenv("STICKYPROXY_ADMIN_TOKEN", "secret")

    ended = Ended(capsys, "drain", "--wait")

    assert ended.code == 0
    assert admin.asked == ["POST /drain_listeners", "GET /server_info", "GET /server_info"]
    assert set(admin.tokens) == {"secret"}


def test_drain_says_when_it_is_refused(capsys: pytest.CaptureFixture[str], admin: Admin) -> None:
    admin.status = 403

    ended = Ended(capsys, "drain", "--admin", admin.address)

    assert ended.code == 1
    assert ended.err == [f"stickyproxy drain: {admin.address} refused with status 403: said"]


def test_drain_says_when_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"

    ended = Ended(capsys, "drain", "--admin", address)

    assert ended.code == 1
    assert ended.err[0].startswith(f"stickyproxy drain: no proxy answers at {address}: ")
