"""How connections live and end: keep-alive, pipelining, HTTP/1.0, trailers, `Expect`, proxies' own."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import httpx
import pytest

from support import rawframes as raw
from support.http_backends import body_of, digest
from support.http_clients import (
    PATIENCE,
    curl,
    h2_request,
    needs_curl,
    raw_client,
    raw_h2_client,
)
from support.http_lab import DOWNSTREAMS, UPSTREAMS, Lab


def test_one_client_connection_uses_one_backend_connection(http_lab: Lab) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", http_lab.clear.port, timeout=PATIENCE)
    used = set()
    for number in range(5):
        connection.request("POST", "/http/", body=b"x" * number)
        answer = json.loads(connection.getresponse().read())
        assert answer["length"] == number
        used.add(answer["connection"])
    connection.close()
    assert len(used) == 1


def test_http_client_of_the_standard_library_sends_chunks(http_lab: Lab) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", http_lab.clear.port, timeout=PATIENCE)

    def pieces() -> Iterator[bytes]:
        yield from (b"a" * 10, b"b" * 70_000, b"c")

    connection.request("POST", "/http/", body=pieces(), encode_chunked=True)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer["digest"] == digest(b"a" * 10 + b"b" * 70_000 + b"c")


@pytest.mark.parametrize("down", DOWNSTREAMS)
def test_httpx_reuses_its_connection(http_lab: Lab, down: str) -> None:
    verify = http_lab.authority.client_context() if down.endswith("tls") else False
    two = down.startswith("h2")
    with httpx.Client(
        http1=not two, http2=two, verify=verify, timeout=PATIENCE, trust_env=False
    ) as client:
        for up in UPSTREAMS:
            answer = client.post(http_lab.url(down, up), content=body_of(40_000))
            assert answer.http_version == ("HTTP/2" if two else "HTTP/1.1")
            assert answer.json()["digest"] == digest(body_of(40_000))


def test_pipelined_requests_are_answered_in_order(http_lab: Lab) -> None:
    with raw_client(http_lab.clear.port) as client:
        client.send(
            b"POST /http/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            b"POST /http/2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nde\r\n0\r\n\r\n"
            b"HEAD /http/3 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n"
            b"GET /http/5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        assert json.loads(client.read_response()[2])["target"] == "/1"
        assert json.loads(client.read_response()[2])["length"] == 2
        assert b" 200 " in client.read_until(b"\r\n\r\n")
        assert client.read_response()[0] == 404
        _, fields, body = client.read_response()
        assert json.loads(body)["target"] == "/5"
        assert fields["connection"] == "close"
        assert client.read_to_end() == b""


def test_many_pipelined_requests_are_all_answered(http_lab: Lab) -> None:
    count = 200
    with raw_client(http_lab.clear.port) as client:
        client.send(b"GET /http/x HTTP/1.1\r\nHost: a\r\n\r\n" * count)
        assert [client.read_response()[0] for _ in range(count)] == [200] * count


def test_an_http10_client_gets_a_plain_body_and_the_end(http_lab: Lab) -> None:
    with raw_client(http_lab.clear.port) as client:
        client.send(b"GET /http/bytes?size=200000&chunked=1 HTTP/1.0\r\nHost: a\r\n\r\n")
        head = client.read_until(b"\r\n\r\n").lower()
        assert b"transfer-encoding" not in head
        assert client.read_to_end() == body_of(200_000)


def test_an_http10_client_is_told_no_100(http_lab: Lab) -> None:
    with raw_client(http_lab.clear.port) as client:
        client.send(
            b"POST /http/ HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
        )
        assert client.read_until(b"\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_backend_that_closes_ends_no_client_connection(http_lab: Lab) -> None:
    with raw_client(http_lab.clear.port) as client:
        for _ in range(3):
            client.send(b"GET /http/close HTTP/1.1\r\nHost: a\r\n\r\n")
            status, fields, body = client.read_response()
            assert (status, body) == (200, b"last words")
            assert "connection" not in fields


@needs_curl
@pytest.mark.parametrize("down", DOWNSTREAMS)
def test_a_body_that_ends_with_the_backends_connection_is_whole(http_lab: Lab, down: str) -> None:
    answer = curl(http_lab.url(down, "http", "undelimited"), *http_lab.flags(down))
    assert (answer.exit_code, answer.body) == (0, b"until the end")


def test_expect_continue_is_the_backends_to_answer(http_lab: Lab) -> None:
    for up in UPSTREAMS:
        with raw_client(http_lab.clear.port) as client:
            client.send(
                b"POST /%s/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                b"Content-Length: 5\r\n\r\n" % up.encode()
            )
            assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.send(b"hello")
            status, _, body = client.read_response()
            assert (status, json.loads(body)["digest"]) == (200, digest(b"hello"))


@needs_curl
@pytest.mark.parametrize("down", DOWNSTREAMS)
def test_curl_expects_and_uploads(http_lab: Lab, down: str) -> None:
    answer = curl(
        http_lab.url(down, "http"),
        *http_lab.flags(down),
        *("-H", "Expect: 100-continue", "-T", "-"),
        stdin=body_of(50_000),
    )
    assert (answer.exit_code, answer.json()["digest"]) == (0, digest(body_of(50_000)))


@pytest.mark.parametrize("up", UPSTREAMS)
def test_request_trailers_arrive(http_lab: Lab, up: str) -> None:
    path = b"/" + up.encode() + b"/"
    expected = [["x-sum", "7"], ["x-two", "a"]]
    with raw_client(http_lab.clear.port) as client:
        client.send(
            b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\nX-Sum: 7\r\nX-Two: a\r\n\r\n"
        )
        assert json.loads(client.read_response()[2])["trailers"] == expected
    with raw_h2_client(http_lab.clear.port) as two:
        two.request(1, h2_request(path, method=b"POST"), end=False)
        two.send(raw.data(1, b"abc"))
        two.send(two.coder.headers(1, [(b"x-sum", b"7"), (b"x-two", b"a")], end=True))
        assert json.loads(two.response(1)[1])["trailers"] == expected


@pytest.mark.parametrize("up", UPSTREAMS)
def test_response_trailers_arrive(http_lab: Lab, up: str) -> None:
    path = b"/" + up.encode() + b"/trailers"
    with raw_client(http_lab.clear.port) as client:
        client.send(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        assert client.read_until(b"\r\n\r\n") == (
            b"4\r\nbody\r\n0\r\nx-checksum: 17\r\nx-second: a\r\nx-second: b\r\n\r\n"
        )
    with raw_h2_client(http_lab.clear.port) as two:
        two.request(1, h2_request(path, (b"te", b"trailers")))
        assert two.response(1)[1:] == (
            b"body",
            [(b"x-checksum", b"17"), (b"x-second", b"a"), (b"x-second", b"b")],
        )


def test_trailers_are_left_out_for_http10(http_lab: Lab) -> None:
    with raw_client(http_lab.clear.port) as client:
        client.send(b"GET /http/trailers HTTP/1.0\r\nHost: a\r\n\r\n")
        client.read_until(b"\r\n\r\n")
        assert client.read_to_end() == b"body"
