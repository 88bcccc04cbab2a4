"""What prevents the start: one clear line that names the thing and the way out, and exit code 2."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.http_lab import Authority
from support.proxy_process import command

BACKEND = ("--backend", "http://127.0.0.1:9")
MAPPING = "{{apiVersion: ambassador/v1, kind: Mapping, name: m, prefix: /, service: s, {more}}}\n"


@dataclass(frozen=True)
class Place:
    """A folder with bad things in it, and a port that is taken."""

    folder: Path
    authority: Authority
    other: Authority
    taken: int

    def file(self, name: str, content: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("bad-start")
    one, other = Authority.make(folder / "one"), Authority.make(folder / "other")
    (folder / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Place(folder, one, other, listener.getsockname()[1])


def refusal(*arguments: str) -> str:
    """The one line it says; it must not serve, and not print a traceback."""
    flags = ("--admin", "off", "--bind", "127.0.0.1:0")
    given = arguments if {"--bind", "--admin"} & set(arguments) else (*arguments, *flags)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("STICKYPROXY_")}
    done = subprocess.run(
        command("run", *given),
        capture_output=True,
        check=False,
        timeout=20,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2, done.stderr.decode()
    assert done.stdout == b""
    [line] = done.stderr.decode().splitlines()
    return line


BAD_FLAGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "nothing to do": ((), ("--backend",)),
    "unknown flag": ((*BACKEND, "--sticki", "x"), ("--sticki",)),
    "unknown scheme": (("--backend", "ftp://127.0.0.1:9"), ("ftp", "http")),
    "hash without a key": ((*BACKEND, "--policy", "maglev"), ("--policy", "sticky header:NAME")),
    "no worker": ((*BACKEND, "--workers", "0"), ("--workers",)),
    "bind to a stranger": ((*BACKEND, "--bind", "192.0.2.1:0", "--admin", "off"), ("192.0.2.1",)),
    "bind to no socket": ((*BACKEND, "--bind", "fd://99", "--admin", "off"), ("fd://99",)),
    "unix in no folder": (
        (*BACKEND, "--bind", "unix:/no/such/p", "--admin", "off"),
        ("/no/such/p",),
    ),
    "https without a key": ((*BACKEND, "--bind", "https://127.0.0.1:0"), ("--tls-cert",)),
    "certificate without a key": ((*BACKEND, "--tls-cert", "x.pem"), ("--tls-key",)),
    "missing file": (("no-such.yaml",), ("no-such.yaml",)),
    "missing authority": ((*BACKEND, "--backend-ca", "no.pem"), ("no.pem",)),
}


@pytest.mark.parametrize(("flags", "words"), BAD_FLAGS.values(), ids=BAD_FLAGS.keys())
def test_a_bad_flag_is_one_line(flags: tuple[str, ...], words: tuple[str, ...]) -> None:
    line = refusal(*flags)
    for word in words:
        assert word in line


BAD_FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "no YAML": ("kind: [", ("bad.yaml:2:",)),
    "binary": (bytes(range(256)), ("bad.yaml",)),
    "wrong type": (MAPPING.format(more="timeout_ms: soon"), ("timeout_ms", "soon", ":1:")),
    "unknown policy": (MAPPING.format(more="load_balancer: {policy: rr}"), ("rr", "round_robin")),
    "over 100 percent": (
        "---\n" + MAPPING.format(more="weight: 90") + "---\n"
        "{apiVersion: ambassador/v1, kind: Mapping, name: n, prefix: /, service: s, weight: 20}\n",
        ("weight",),
    ),
    "bomb of aliases": (
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{n}: &{n} [{','.join([f'*{chr(ord(n) - 1)}'] * 10)}]\n" for n in "bcdefghi"),
        ("bad.yaml",),
    ),
    "endless nesting": ("[" * 20_000, ("bad.yaml",)),
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_document_is_one_line_with_its_place(
    place: Place, content: str | bytes, words: tuple[str, ...]
) -> None:
    line = refusal(place.file("bad.yaml", content))
    assert line.startswith(str(place.folder / "bad.yaml"))
    for word in words:
        assert word in line


def test_a_folder_without_documents_is_named(place: Place) -> None:
    assert str(place.folder / "empty") in refusal(str(place.folder / "empty"))


def test_a_device_without_an_end_is_no_configuration() -> None:
    """`stickyproxy run /dev/zero` must not eat the machine's memory."""
    assert "/dev/zero" in refusal("/dev/zero")


def test_a_taken_port_is_named_with_a_way_out(place: Place) -> None:
    for flag, rest in (("--bind", ("--admin", "off")), ("--admin", ("--bind", "127.0.0.1:0"))):
        line = refusal(*BACKEND, flag, f"127.0.0.1:{place.taken}", *rest)
        assert f"127.0.0.1:{place.taken}" in line
        assert "in use" in line


def test_a_unix_socket_that_is_served_is_taken(place: Place) -> None:
    path = str(place.folder / "s.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert path in refusal(*BACKEND, "--bind", f"unix:{path}", "--admin", "off")


def test_a_key_that_cannot_be_used_is_named(place: Place) -> None:
    cert, key = str(place.authority.cert_file), str(place.authority.key_file)
    bad = {
        str(place.other.key_file): "not the key",
        str(place.folder / "none.pem"): "no such file",
        str(place.folder): "directory",
        place.file("junk.pem", b"\0\1\2"): "pem key",
        cert: "pem key",
    }
    for file, words in bad.items():
        line = refusal(*BACKEND, "--tls-cert", cert, "--tls-key", file)
        assert file in line
        assert words in line.lower()
    line = refusal(*BACKEND, "--tls-cert", key, "--tls-key", key)
    assert line.startswith("--tls-cert: ")
    assert "no certificate" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_key_is_named(place: Place) -> None:
    key = place.file("secret.pem", place.authority.key_file.read_bytes())
    Path(key).chmod(0)
    line = refusal(*BACKEND, "--tls-cert", str(place.authority.cert_file), "--tls-key", key)
    assert key in line
    assert "permission denied" in line


def test_an_unknown_command_is_one_line() -> None:
    done = subprocess.run(command("serve"), capture_output=True, check=False, timeout=20)
    assert done.returncode == 2
    [line] = done.stderr.decode().splitlines()
    assert "serve" in line
