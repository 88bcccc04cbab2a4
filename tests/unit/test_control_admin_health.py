"""grpc.health.v1 on the admin port, checked with the real protobuf messages."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st

from stickyproxy.control.admin.app import AdminApp, AdminResponse
from stickyproxy.control.admin.health import parse_check
from support.adminview import View

CHECK = "/grpc.health.v1.Health/Check"


def grpc_call(
    app: AdminApp, body: bytes, path: str = CHECK, kind: bytes = b"application/grpc"
) -> AdminResponse:
    return app.respond("POST", path, [(b"content-type", kind)], body, loopback=False)


def framed(message: bytes, flag: int = 0) -> bytes:
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def check(service: str) -> bytes:
    return framed(health_pb2.HealthCheckRequest(service=service).SerializeToString())


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("kind", [b"application/grpc", b"application/grpc+proto"])
def test_kubelets_grpc_probe_is_answered(read_only: bool, kind: bytes) -> None:
    view = View()
    app = AdminApp(view, read_only=read_only)
    for ready, serving in [(True, "SERVING"), (False, "NOT_SERVING")]:
        view.is_ready = ready
        response = grpc_call(app, check(""), kind=kind)
        answer = health_pb2.HealthCheckResponse.FromString(response.body[5:])

        assert response.status == 200
        assert response.body == framed(response.body[5:])
        assert answer.status == health_pb2.HealthCheckResponse.ServingStatus.Value(serving)
        assert response.trailers == [(b"grpc-status", b"0")]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (CHECK, check("greeter"), b"5"),
        ("/grpc.health.v1.Health/Watch", check(""), b"12"),
        ("/drain_listeners", check(""), b"12"),
        (CHECK, framed(b"", flag=1), b"12"),
        (CHECK, b"", b"13"),
        (CHECK, b"\x00\x00", b"13"),
        (CHECK, framed(b"") + framed(b""), b"13"),
        (CHECK, framed(b"")[:-1], b"13"),
        (CHECK, b"\x02\x00\x00\x00\x00", b"13"),
        (CHECK, framed(b"\x0a\xff"), b"13"),
        (CHECK, framed(b"\x0a\x05abc"), b"13"),
        (CHECK, framed(b"\xff" * 40), b"13"),
    ],
)
def test_everything_else_is_refused_in_grpcs_own_way(path: str, body: bytes, status: bytes) -> None:
    view = View()
    response = grpc_call(AdminApp(view), body, path)

    assert (response.status, response.body, response.trailers) == (200, b"", None)
    assert (b"grpc-status", status) in response.headers
    assert view.done() == (0, [])


@pytest.mark.parametrize("kind", [b"application/grpc-web", b"application/json", b""])
def test_what_is_no_grpc_gets_no_grpc_answer(kind: bytes) -> None:
    assert grpc_call(AdminApp(View()), check(""), kind=kind).status == 404


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_request_is_read_as_protobuf_writes_it(service: str) -> None:
    message = health_pb2.HealthCheckRequest(service=service).SerializeToString()
    unknown_fields = b"\x10\x96\x01" + b"\x1d\x00\x00\x00\x00" + b"\x21" + b"\x00" * 8

    assert parse_check(message) == service.encode()
    assert parse_check(unknown_fields + message) == service.encode()


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(message: bytes) -> None:
    parse_check(message)
