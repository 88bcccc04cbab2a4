"""The image, built and run: small, nobody's, read-only, without a shell, and a sidecar in one line.

Opt-in: `./dev conformance image`, as root or under `buildah unshare`. What it does not show: the build
by Docker's own engine on Docker's own base image (the base here is made of the same Debian packages),
and arm64 at work (only that every package has a wheel for it).
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from stickyproxy import __version__
from support import image as images
from support.image import Container, Image, running
from support.manifests import ROOT

pytestmark = [
    pytest.mark.skipif(
        "image" not in os.environ.get("CONFORMANCE", ""), reason="opt-in: CONFORMANCE=image"
    ),
    pytest.mark.timeout(900),
]

LARGEST = 40_000_000
"""Bytes, compressed: half of what python:3-slim alone has."""

IMPORT_ALL = """
import importlib, pkgutil, stickyproxy
for found in pkgutil.walk_packages(stickyproxy.__path__, 'stickyproxy.'):
    name = found.name.rpartition('.')[2]
    if not name.startswith('demo') and name not in ('__main__', 'kube_config'):
        importlib.import_module(found.name)  # those two need what only their extras bring
print('all')
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    if reason := images.lacking():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="stickyproxy-image-") as folder:
        yield Image(Path(folder))


def files(image: Image) -> list[Path]:
    return [path for path in image.rootfs.rglob("*") if not path.is_symlink()]


# --- what is in it --------------------------------------------------------------------------------


def test_it_says_who_it_is_and_where_it_listens(image: Image) -> None:
    assert image.config["User"] == "65532:65532"
    assert image.config["Entrypoint"] == ["stickyproxy"]
    assert image.config["ExposedPorts"].keys() == {f"{n}/tcp" for n in (8080, 8081, 8443, 9901)}
    assert image.environment()["STICKYPROXY_HEALTH"] == "0.0.0.0:8081"


def test_it_is_small(image: Image) -> None:
    with tempfile.TemporaryFile() as packed:
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=6) as tar:
            tar.add(image.rootfs, "/")
        compressed = packed.tell()
    unpacked = sum(path.stat().st_size for path in files(image) if path.is_file())
    sys.stderr.write(f"image: {unpacked / 1e6:.1f} MB, compressed {compressed / 1e6:.1f} MB\n")

    assert compressed < LARGEST


def test_there_is_no_shell_no_package_manager_and_nothing_with_a_special_right(
    image: Image,
) -> None:
    programs = {p.name for p in files(image) if p.is_file() and os.access(p, os.X_OK)}
    rights = [path for path in files(image) if path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)]
    open_to_all = [path for path in files(image) if path.stat().st_mode & stat.S_IWOTH]

    assert programs & {"sh", "bash", "dash", "busybox", "apt", "dpkg", "pip", "perl"} == set()
    assert (rights, open_to_all) == ([], [])
    assert [path for path in files(image) if path.stat().st_uid == 65532] == []


def test_every_module_is_compiled(image: Image) -> None:
    sources = [path for path in files(image) if path.suffix == ".py"]
    compiled = {
        (p.parent.parent, p.name.partition(".")[0]) for p in files(image) if p.suffix == ".pyc"
    }

    assert len(sources) > 500
    assert [path for path in sources if (path.parent, path.stem) not in compiled] == []


def test_what_debian_gave_is_told_to_scanners(image: Image) -> None:
    told = {path.name for path in (image.rootfs / "var/lib/dpkg/status.d").iterdir()}

    assert {"libc6", "libssl3t64", "libstdc++6", "ca-certificates"} <= told
    for package in told:
        assert (image.rootfs / "usr/share/doc" / package / "copyright").exists(), package


def test_every_package_has_a_wheel_for_arm64(tmp_path: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    platforms = ["manylinux_2_28_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64"]
    chosen = [word for name in platforms for word in ("--platform", name)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
            *("--only-binary", ":all:", "--target", tmp_path, "--python-version", "3.13"),
            *("--constraint", ROOT / "constraints.txt"),
            *chosen,
            *project["dependencies"],
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


# --- how it runs ----------------------------------------------------------------------------------


def test_without_arguments_it_says_how_to_use_it(image: Image) -> None:
    done = image.run()

    assert done.returncode == 2
    assert "usage: stickyproxy COMMAND" in done.stderr


def test_it_says_its_version(image: Image) -> None:
    assert image.run("version").stdout == f"stickyproxy {__version__}\n"


def test_every_module_finds_what_it_imports(image: Image) -> None:
    done = image.run("-c", IMPORT_ALL, program=["python"])

    assert (done.stdout, done.stderr) == ("all\n", "")


class Echo(BaseHTTPRequestHandler):
    """Answers every GET with its path."""

    def do_GET(self) -> None:  # the base class's name
        body = self.path.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
        """Nothing."""


@pytest.fixture
def sidecar(image: Image) -> Iterator[Container]:
    """The one line of the README, with a backend in its network."""
    with running(image, "--backend", "http://127.0.0.1:50051") as container:
        container.wait_for("listening")
        backend = container.inside(lambda: HTTPServer(("127.0.0.1", 50051), Echo))
        thread = threading.Thread(target=backend.serve_forever)
        thread.start()
        yield container
        backend.shutdown()
        thread.join()
        backend.server_close()


def test_one_line_is_a_sidecar_with_its_health_on(sidecar: Container) -> None:
    def ask() -> list[tuple[int, str, str]]:
        one = httpx.get("http://127.0.0.1:8080/one")
        with httpx.Client(http1=False, http2=True) as client:
            two = client.get("http://127.0.0.1:8080/two")
        ready = httpx.get("http://127.0.0.1:8081/ready")
        return [(one.status_code, one.text, one.http_version),
                (two.status_code, two.text, two.http_version),
                (ready.status_code, ready.text.strip(), "")]  # fmt: skip

    assert sidecar.inside(ask) == [
        (200, "/one", "HTTP/1.1"),
        (200, "/two", "HTTP/2"),
        (200, "LIVE", ""),
    ]


def test_a_kubelet_may_ask_by_grpc(sidecar: Container) -> None:
    def ask() -> bytes:
        with httpx.Client(http1=False, http2=True) as client:
            return client.post(
                "http://127.0.0.1:8081/grpc.health.v1.Health/Check",
                headers={"content-type": "application/grpc", "te": "trailers"},
                content=b"\0\0\0\0\0",
            ).content

    assert sidecar.inside(ask) == b"\0\0\0\0\2\x08\x01"  # SERVING


def test_it_runs_as_the_first_process_of_nobody(sidecar: Container) -> None:
    status = Path(f"/proc/{sidecar.pid}/status").read_text().splitlines()
    told = dict(line.split(":\t", 1) for line in status if ":\t" in line)

    assert told["NSpid"].split()[-1] == "1"
    assert set(told["Uid"].split()) == {"65532"}
    assert told["CapEff"] == told["CapPrm"] == "0" * 16
    assert told["NoNewPrivs"] == "1"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_heeds_signals_as_the_first_process(image: Image, number: signal.Signals) -> None:
    quick = ["--drain-delay", "0", "--drain-timeout", "5"]
    with running(image, "--backend", "127.0.0.1:50051", *quick) as container:
        container.wait_for("listening")

        assert container.end(number) == 0


def test_the_hook_of_the_manifests_begins_the_drain(image: Image, sidecar: Container) -> None:
    done = sidecar.execute(image, "stickyproxy", "drain")

    assert (done.returncode, done.stderr) == (0, "")
    sidecar.wait_for("draining")
    assert sidecar.inside(lambda: httpx.get("http://127.0.0.1:8081/ready")).status_code == 503
