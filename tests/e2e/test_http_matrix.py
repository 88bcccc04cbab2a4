"""Every kind of client through the proxy to every kind of backend: the plain things, all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.http_backends import body_of, digest
from support.http_clients import curl, needs_curl
from support.http_lab import DOWNSTREAMS, UPSTREAMS, Lab

pytestmark = needs_curl

PAIRS = [(down, up) for down in DOWNSTREAMS for up in UPSTREAMS]
BIG = 20_000_000
every_pair = pytest.mark.parametrize(("down", "up"), PAIRS, ids=[f"{d}-{u}" for d, u in PAIRS])


def version_of(downstream: str) -> str:
    return "HTTP/2" if downstream.startswith("h2") else "HTTP/1.1"


@every_pair
def test_get(http_lab: Lab, down: str, up: str) -> None:
    answer = curl(http_lab.url(down, up, "some/thing?a=1&b=%20"), *http_lab.flags(down))
    assert (answer.exit_code, answer.status) == (0, 200)
    assert answer.version == version_of(down)
    assert answer.json()["target"] == "/some/thing?a=1&b=%20"


@every_pair
def test_post_with_a_length_arrives_whole_and_keeps_it(http_lab: Lab, down: str, up: str) -> None:
    body = body_of(100_000)
    answer = curl(http_lab.url(down, up), *http_lab.flags(down), "--data-binary", "@-", stdin=body)
    assert (answer.exit_code, answer.status) == (0, 200)
    assert answer.json()["digest"] == digest(body)
    assert dict(answer.json()["headers"])["content-length"] == "100000"


@every_pair
def test_post_without_a_length_arrives_whole(http_lab: Lab, down: str, up: str) -> None:
    body = body_of(300_000)
    answer = curl(
        http_lab.url(down, up), *http_lab.flags(down), "-X", "POST", "-T", "-", stdin=body
    )
    assert (answer.exit_code, answer.status) == (0, 200)
    assert answer.json()["digest"] == digest(body)
    assert dict(answer.json()["headers"])["transfer-encoding"] == "chunked"


@every_pair
def test_both_framings_of_a_response_arrive_whole(http_lab: Lab, down: str, up: str) -> None:
    for query in ("size=300000", "size=300000&chunked=1"):
        answer = curl(http_lab.url(down, up, "bytes?" + query), *http_lab.flags(down))
        assert (answer.exit_code, answer.status) == (0, 200)
        assert answer.body == body_of(300_000)
        assert answer.values("content-length") == ([] if "chunked" in query else ["300000"])


@every_pair
def test_head_has_the_length_and_no_body(http_lab: Lab, down: str, up: str) -> None:
    answer = curl(http_lab.url(down, up, "bytes?size=5000"), *http_lab.flags(down), "--head")
    assert (answer.exit_code, answer.status) == (0, 200)
    assert answer.values("content-length") == ["5000"]


@every_pair
def test_answers_without_a_body(http_lab: Lab, down: str, up: str) -> None:
    for code in (204, 304):
        answer = curl(http_lab.url(down, up, f"status?code={code}"), *http_lab.flags(down))
        assert (answer.exit_code, answer.status, answer.body) == (0, code, b"")
        assert answer.values("etag") == ['"1"']
        assert answer.values("transfer-encoding") == []


@every_pair
def test_fields_of_one_name_stay_apart_and_in_order(http_lab: Lab, down: str, up: str) -> None:
    answer = curl(http_lab.url(down, up, "cookies"), *http_lab.flags(down))
    assert answer.values("set-cookie") == [f"c{n}={n}; Path=/" for n in range(10)]
    assert answer.values("x-order") == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("down", "up"), [("h1", "http"), ("h1-tls", "h2"), ("h2c", "https"), ("h2-tls", "h2c")]
)
def test_a_big_body_passes_in_both_directions(
    http_lab: Lab, tmp_path: Path, down: str, up: str
) -> None:
    body = body_of(BIG)
    file = tmp_path / "body"
    file.write_bytes(body)
    answer = curl(http_lab.url(down, up, "mirror"), *http_lab.flags(down), "-T", str(file))
    assert (answer.exit_code, answer.status) == (0, 200)
    assert digest(answer.body) == digest(body)
