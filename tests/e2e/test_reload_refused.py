"""A reload that is refused changes nothing, whatever the file has become."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stickyproxy.control.files import EVERY
from support.grpc_backends import wait_until
from support.http_backends import EchoBackend, echo_backends
from support.http_clients import raw_client
from support.http_lab import PATIENT, mappings
from support.proxy_process import running_proxy
from support.reloading import metric, status


@pytest.fixture(scope="module")
def web() -> Iterator[EchoBackend]:
    with echo_backends() as [backend]:
        yield backend


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def test_broken_file_changes_nothing_and_names_its_line(config: Path, web: EchoBackend) -> None:
    good = mappings({"kept": f"http://{web.address}"})
    config.write_text(good)
    with running_proxy(str(config)) as proxy, raw_client(proxy.port) as client:
        assert metric(proxy, "config_last_reload_successful") == 1
        config.write_text(mappings({"new": f"http://{web.address}"}) + good + "grpc: perhaps\n")
        refused = proxy.wait_for_event("reload_refused")
        assert refused["problem"].startswith(f"{config}:15: grpc"), refused
        assert (status(client, "/kept/"), status(client, "/new/")) == (200, 404)
        assert metric(proxy, "config_last_reload_successful") == 0
        assert metric(proxy, "config_reload_failures_total") == 1
        config.write_text(good)
        proxy.wait_for_event("reloaded")
        assert metric(proxy, "config_last_reload_successful") == 1


def test_an_edit_with_its_signal_is_answered_once_and_the_next_edit_again(
    config: Path, web: EchoBackend
) -> None:
    good = mappings({"kept": f"http://{web.address}"})
    config.write_text(good)
    with running_proxy(str(config)) as proxy:
        config.write_text(good + "grpc: perhaps\n")
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_event("reload_refused")
        time.sleep(2 * EVERY)  # that nothing comes of the next look can only be waited for
        config.write_text(good)
        proxy.wait_for_event("reloaded")
        told = [line["event"] for line in proxy.events if line["event"].startswith("reload")]
        assert told == ["reload_refused", "reloaded"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: config.unlink(),
        lambda config: config.write_bytes(b"\xff\xfe\x00"),
        lambda config: config.write_text("[" * 50_000),
        lambda config: config.write_text("a: &a [*a, *a]\n"),
    ],
    ids=["gone", "no-text", "nested-50,000-deep", "holds-itself"],
)
def test_whatever_a_file_becomes_the_proxy_goes_on_as_it_was(
    spoil: Callable[[Path], object], config: Path, web: EchoBackend
) -> None:
    good = mappings({"kept": f"http://{web.address}"})
    config.write_text(good)
    with running_proxy(str(config)) as proxy, raw_client(proxy.port) as client:
        assert status(client, "/kept/") == 200
        spoil(config)
        proxy.signal(signal.SIGHUP)
        wait_until(lambda: metric(proxy, "config_reload_failures_total") > 0, "it is refused")
        assert status(client, "/kept/") == 200
        config.write_text(good)
        proxy.signal(signal.SIGHUP)
        proxy.wait_for_event("reloaded")
        assert [line for line in proxy.events if "bug" in line["event"]] == []


def test_service_that_is_no_host_name_is_refused_and_harms_no_other(
    config: Path, web: EchoBackend
) -> None:
    config.write_text(mappings({"kept": f"http://{web.address}"}))
    with running_proxy(str(config)) as proxy, raw_client(proxy.port) as client:
        both = {"kept": f"http://{web.address}", "odd": "http://a..b"}
        config.write_text(mappings(both, PATIENT))
        proxy.signal(signal.SIGHUP)
        assert "`a..b` is no host" in str(proxy.wait_for_event("reload_refused")["problem"])
        assert status(client, "/odd/") == 404
        assert status(client, "/kept/") == 200


def test_check_and_reload_refuse_with_the_same_words(config: Path, web: EchoBackend) -> None:
    good = mappings({"kept": f"http://{web.address}"})
    config.write_text(good)
    with running_proxy(str(config)) as proxy:
        config.write_text(good + "weight: heavy\n")
        proxy.signal(signal.SIGHUP)
        refused = proxy.wait_for_event("reload_refused")
    checked = subprocess.run(
        [*proxy.process.args[:3], "check", str(config)],  # type: ignore[index]
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert checked.returncode == 2
    assert checked.stderr.decode().strip() == refused["problem"]
