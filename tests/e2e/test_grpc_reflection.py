"""grpcurl against a proxy that maps one gRPC service and nothing else.

Reflection and health are services of their own, which nobody mapped; they follow the gRPC Mapping.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stickyproxy.demo.servers import SERVICE, start
from support.grpc_backends import PATIENCE
from support.grpcurl import BUILD_TIMEOUT, find_grpcurl
from support.proxy_process import ProxyProcess, running_proxy

MAPPING = """\
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata:
  name: echo
spec:
  hostname: "*"
  prefix: /stickyproxy.demo.Echo/
  service: echo
  grpc: true
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    config = tmp_path_factory.mktemp("reflection") / "mapping.yaml"
    config.write_text(MAPPING)
    server, port = start("pod-1")
    with running_proxy(str(config), "--service", f"echo=127.0.0.1:{port}") as proxy:
        yield proxy
    server.stop(None).wait()


@pytest.fixture(scope="module")
def grpcurl() -> str:
    return find_grpcurl()


def ask(grpcurl: str, *arguments: str) -> str:
    done = subprocess.run(
        [grpcurl, "-plaintext", "-max-time", str(PATIENCE), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(grpcurl: str, proxy: ProxyProcess, method: str, request: dict[str, Any]) -> Any:
    return json.loads(ask(grpcurl, "-d", json.dumps(request), proxy.target, method))


pytestmark = pytest.mark.timeout(BUILD_TIMEOUT + 60)


def test_grpcurl_lists_the_services(grpcurl: str, proxy: ProxyProcess) -> None:
    listed = ask(grpcurl, proxy.target, "list").split()

    assert {SERVICE, "grpc.health.v1.Health"} <= set(listed)
    assert ask(grpcurl, proxy.target, "list", SERVICE).split() == [
        f"{SERVICE}.{method}" for method in ("Chat", "Collect", "Repeat", "Say")
    ]


def test_grpcurl_describes_a_service(grpcurl: str, proxy: ProxyProcess) -> None:
    described = ask(grpcurl, proxy.target, "describe", SERVICE)

    assert "rpc Say ( .stickyproxy.demo.EchoRequest )" in described
    assert "rpc Chat ( stream .stickyproxy.demo.EchoRequest )" in described


def test_grpcurl_calls_what_it_found(grpcurl: str, proxy: ProxyProcess) -> None:
    answer = call(grpcurl, proxy, f"{SERVICE}/Say", {"text": "hello"})

    assert answer == {"text": "hello", "backend": "pod-1"}


def test_grpcurl_checks_the_health(grpcurl: str, proxy: ProxyProcess) -> None:
    answer = call(grpcurl, proxy, "grpc.health.v1.Health/Check", {"service": SERVICE})

    assert answer == {"status": "SERVING"}


def test_health_is_watched_as_a_stream(proxy: ProxyProcess) -> None:
    with grpc.insecure_channel(proxy.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE
        )
        first = next(iter(watch))
        watch.cancel()

    assert first.status == health_pb2.HealthCheckResponse.SERVING


def test_another_service_stays_unknown(grpcurl: str, proxy: ProxyProcess) -> None:
    done = subprocess.run(
        [grpcurl, "-plaintext", "-d", "{}", proxy.target, "some.Other/Call"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    with grpc.insecure_channel(proxy.target) as channel:
        other: Any = channel.unary_unary
        asked = other("/some.Other/Call").future(b"", timeout=PATIENCE)
        assert asked.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "(NR no_route)" in asked.details()


def test_a_mapping_of_its_own_takes_health_away(tmp_path: Path) -> None:
    """Whoever claims the health service has it."""
    own = MAPPING.replace("name: echo", "name: own-health").replace(
        "prefix: /stickyproxy.demo.Echo/", "prefix: /grpc.health.v1.Health/"
    )
    config = tmp_path / "mappings.yaml"
    config.write_text(f"{MAPPING}---\n{own.replace('service: echo', 'service: health')}")
    one, first = start("pod-1")
    two, second = start("pod-2")
    services = (f"echo=127.0.0.1:{first}", f"health=127.0.0.1:{second}")
    flags = [flag for service in services for flag in ("--service", service)]
    with running_proxy(str(config), *flags) as proxy:
        with grpc.insecure_channel(proxy.target) as channel:
            health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE
            )
        [line] = proxy.wait_for_access(1)
    one.stop(None)
    two.stop(None).wait()

    assert line["route"] == "own-health"
    assert line["upstream_host"] == f"127.0.0.1:{second}"
