"""The Module's rules of the edge at work: who is let in, and what becomes of a request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.asking import Site, running_site
from support.grpc_calls import access_line, grpc_request
from support.http_clients import raw_h2_client
from support.proxy_process import KEEPS_IDS

MAPPINGS = """
---
{apiVersion: ambassador/v1, kind: Mapping, name: all, prefix: /, service: one,
 hostname: "*", rewrite: ""}
---
{apiVersion: ambassador/v1, kind: Mapping, name: named, prefix: /named/, service: one,
 host: a.test, rewrite: ""}
"""


def documents(**config: object) -> str:
    return (
        MAPPINGS
        + "---\n"
        + json.dumps(
            {
                "apiVersion": "ambassador/v1",
                "kind": "Module",
                "name": "ambassador",
                "config": config,
            }
        )
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Behind a hop that is believed: everybody but 10.0.0.0/8."""
    rules = documents(
        xff_num_trusted_hops=1,
        ip_deny=[{"remote": "10.0.0.0/8"}],
        server_name="gate",
        merge_slashes=True,
        reject_requests_with_escaped_slashes=True,
        headers_with_underscores_action="DROP_HEADER",
        strip_matching_host_port=True,
    )
    with running_site(tmp_path_factory.mktemp("guarded"), rules) as running:
        yield running


def test_who_is_denied_gets_403_and_no_backend(guarded: Site) -> None:
    before = len(guarded.backends[0].requests)
    told = guarded.ask("/x", "X-Forwarded-For: 10.1.2.3", "X-Request-Id: denied")

    assert told.status == 403
    assert told.fields["x-stickyproxy-error"] == "-"
    assert len(guarded.backends[0].requests) == before
    assert access_line(guarded.proxy, "denied")["http_status"] == 403


def test_everybody_else_is_let_in(guarded: Site) -> None:
    assert guarded.ask("/x", "X-Forwarded-For: 192.0.2.1").pod == "pod-1"
    assert guarded.ask("/x").pod == "pod-1"


def test_a_denied_grpc_call_is_permission_denied(guarded: Site) -> None:
    with raw_h2_client(guarded.proxy.port) as client:
        client.request(1, grpc_request("/a.B/C", (b"x-forwarded-for", b"10.0.0.1")))
        fields, _, _ = client.response(1)

    assert fields[b"grpc-status"] == b"7"


def test_the_server_is_named_in_every_answer(guarded: Site) -> None:
    assert guarded.ask("/x").fields["server"] == "gate"
    assert guarded.ask("/x", "X-Forwarded-For: 10.1.2.3").fields["server"] == "gate"


def test_slashes_are_merged_before_a_route_is_looked_for(guarded: Site) -> None:
    told = guarded.ask("//named///x?y=//z", "X-Request-Id: merged")

    assert told.seen is not None
    assert told.seen["target"] == "/named/x?y=//z"
    assert access_line(guarded.proxy, "merged")["route"] == "named"


def test_dots_do_not_lead_past_the_prefix_that_is_asked_for(guarded: Site) -> None:
    told = guarded.ask("/named/%2e./other?x=/../", "X-Request-Id: dots")

    assert told.seen is not None
    assert told.seen["target"] == "/other?x=/../"
    assert access_line(guarded.proxy, "dots")["route"] == "all"


def test_escaped_slashes_are_refused(guarded: Site) -> None:
    assert guarded.ask("/a%2fb").status == 400
    assert guarded.ask("/a%20b").status == 200


def test_headers_with_underscores_do_not_pass(guarded: Site) -> None:
    told = guarded.ask("/x", "X_Under: 1", "X-Dash: 1")

    assert (told.asked("x_under"), told.asked("x-dash")) == ([], ["1"])


def test_the_port_we_listen_on_goes_from_the_host(guarded: Site) -> None:
    ours, other = f"a.test:{guarded.proxy.port}", "a.test:1"

    assert guarded.ask("/x", host=ours).asked("host") == ["a.test"]
    assert guarded.ask("/x", host=other).asked("host") == [other]


# --- https ----------------------------------------------------------------------------------------


def test_what_did_not_come_over_tls_is_redirected(tmp_path: Path) -> None:
    rules = documents(x_forwarded_proto_redirect=True, use_remote_address=False)
    with running_site(tmp_path, rules) as site:
        told = site.ask("/x?y=1", "X-Forwarded-Proto: http")
        assert (told.status, told.fields["location"]) == (301, "https://a.test/x?y=1")
        assert site.ask("/x").status == 301
        assert site.ask("/x", "X-Forwarded-Proto: https").pod == "pod-1"


# --- allow lists, request ids, idle connections ---------------------------------------------------


def test_only_who_is_allowed_is_let_in(tmp_path: Path) -> None:
    allowed = [{"peer": "192.0.2.0/24"}, {"remote": "198.51.100.7"}]
    rules = documents(xff_num_trusted_hops=1, ip_allow=allowed)
    with running_site(tmp_path, rules) as site:
        assert site.ask("/x").status == 403
        assert site.ask("/x", "X-Forwarded-For: 192.0.2.1").status == 403
        assert site.ask("/x", "X-Forwarded-For: 198.51.100.7").pod == "pod-1"


BY_DEFAULT = {KEEPS_IDS: ""}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({}, False),
        ({"preserve_external_request_id": False}, False),
        ({"preserve_external_request_id": True}, True),
        ({"xff_num_trusted_hops": 1}, True),
        ({"use_remote_address": False}, True),
    ],
)
def test_only_a_trusted_hops_request_id_is_believed_unless_all_are_preserved(
    tmp_path: Path, said: dict[str, object], kept: bool
) -> None:
    with running_site(tmp_path, documents(**said), environment=BY_DEFAULT) as site:
        told = site.ask("/x", "X-Request-Id: theirs", "X-Request-Id: again")
        found = told.asked("x-request-id")
        if kept:
            assert found == ["theirs", "again"]
        else:
            assert re.fullmatch("[0-9a-f]{32}", " ".join(found))
        assert access_line(site.proxy, found[-1])["http_status"] == 200


def test_a_request_with_a_header_name_that_has_an_underscore_may_be_refused(tmp_path: Path) -> None:
    rules = documents(headers_with_underscores_action="REJECT_REQUEST")
    with running_site(tmp_path, rules) as site:
        assert site.ask("/x", "X_Under: 1").status == 400
