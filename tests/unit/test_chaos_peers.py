"""The same job in everybody's words, and the order in which they have their turns."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaos import envoy
from chaos.__main__ import chosen, main, options
from chaos.job import BACKEND_PORT, CHAT, NAME, PORT, UNARY, USER, Job, Setup
from chaos.network import busiest
from chaos.peers import OURS, Peer, haproxy, mapping, nghttpx, sticky
from chaos.rounds import turns
from chaos.scenarios import Pace, scenario
from stickyproxy.config.load import load

JOB = Job(Path("/run/x"), ("10.77.1.2", "10.77.2.2"), Setup())


def job(**setup: Any) -> Job:
    return replace(JOB, setup=replace(JOB.setup, **setup))


def words(job: Job) -> dict[str, str]:
    """What each proxy is told, as one text."""
    return {
        "sticky": mapping(job, idempotent=True) + " ".join(sticky(["stickyproxy"], "lab.yaml")),
        "envoy-h2": envoy.config(job, envoy.DEFAULT),
        "envoy-h1": envoy.config(job, envoy.HTTP1),
        "envoy-max": envoy.config(job, envoy.most()),
        "haproxy": haproxy(job),
        "nghttpx": " ".join(nghttpx("nghttpx", job)),
    }


@pytest.mark.parametrize("name", sorted(words(JOB)))
def test_everybody_gets_the_same_port_and_backends(name: str) -> None:
    told = words(JOB)[name]

    assert all(part in told for part in (*JOB.backends, str(BACKEND_PORT), str(PORT)))


TLS = {
    "sticky": "h2://",
    "envoy-h2": "UpstreamTlsContext",
    "envoy-h1": "http/1.1",
    "envoy-max": "UpstreamTlsContext",
    "haproxy": "ssl verify none alpn h2",
    "nghttpx": "proto=h2;tls",
}


@pytest.mark.parametrize("name", sorted(TLS))
def test_everybody_speaks_tls_to_backends_if_asked_and_only_then(name: str) -> None:
    assert TLS[name] in words(job(tls=True))[name]
    assert TLS[name] not in words(JOB)[name]


HTTP1 = {
    "sticky": "http://lab",
    "envoy-h1": "http_protocol_options",
    "haproxy": "8080 \n",
    "nghttpx": "proto=http/1.1",
}


@pytest.mark.parametrize("name", sorted(HTTP1))
def test_everybody_speaks_http_1_1_to_backends_if_asked(name: str) -> None:
    told = words(job(http1=True))[name]
    assert HTTP1[name] in told
    assert "proto h2 \n" not in told


@pytest.mark.parametrize("name", ["sticky", "envoy-h2"])
def test_who_finds_backends_by_name_knows_no_address(name: str) -> None:
    told = words(job(named=True))[name]
    assert NAME in told
    assert JOB.backends[0] not in told


@pytest.mark.parametrize("name", ["sticky", "envoy-h2", "haproxy"])
def test_users_are_hashed_if_asked(name: str) -> None:
    assert USER in words(job(sticky=True))[name]
    assert USER not in words(JOB)[name]


def test_streams_that_stay_open_have_no_time_limit() -> None:
    assert json.loads(mapping(job(kind=CHAT), idempotent=False))["timeout_ms"] == 0
    assert '"timeout": "0s"' in envoy.config(job(kind=CHAT), envoy.DEFAULT)
    assert json.loads(mapping(JOB, idempotent=False))["timeout_ms"] == 15000


def test_default_envoy_is_told_nothing_of_its_pool_and_the_tuned_one_everything() -> None:
    default, tuned = words(JOB)["envoy-h2"], words(JOB)["envoy-max"]

    for setting in ("outlier_detection", "connection_keepalive", "retry_policy", "hedge_policy"):
        assert setting not in default
        assert setting in tuned


@pytest.mark.parametrize(
    "setup",
    [{}, {"tls": True}, {"kind": UNARY}, {"sticky": True}, {"http1": True}, {"named": True}],
)
@pytest.mark.parametrize("idempotent", [True, False])
def test_our_document_loads_without_complaint(
    setup: dict[str, Any], tmp_path: Path, *, idempotent: bool
) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text(mapping(job(**setup), idempotent=idempotent))
    complaints = [str(one) for one in load([file], {}).warnings]

    assert [one for one in complaints if "idempotent" not in one and "verified" not in one] == []


def test_only_a_route_that_says_so_may_send_twice() -> None:
    assert json.loads(mapping(JOB, idempotent=True))["idempotent"] is True
    assert "idempotent" not in json.loads(mapping(JOB, idempotent=False))


def peer(name: str, *, grpc: bool = True) -> Peer:
    return Peer(name, "1", lambda _: [name], lambda setup: grpc or not setup.grpc)


def test_each_case_has_a_run_before_any_has_two_and_who_begins_moves_on() -> None:
    scenarios = [scenario("none", Pace()), scenario("unary.none", Pace())]
    found = turns(scenarios, [peer("a"), peer("b"), peer("c", grpc=False)], 2)
    said = [(turn.number, turn.scenario.name, turn.peer.name) for turn in found]

    assert said == [
        *[(0, "none", name) for name in "abc"],
        *[(0, "unary.none", name) for name in "ab"],
        *[(1, "none", name) for name in "bca"],
        *[(1, "unary.none", name) for name in "ba"],
    ]


def test_the_busiest_connection_comes_first() -> None:
    said = (
        "0 0 10.77.1.1:40001 10.77.1.2:8080 reno bytes_sent:120 bytes_acked:121\n"
        "0 0 10.77.1.1:40002 10.77.1.2:8080 reno bytes_sent:90000 bytes_acked:1\n"
        "0 0 10.77.1.1:40003 10.77.1.2:8080 reno rto:204\n"
    )

    assert busiest(said) == [40002, 40001, 40003]


def test_an_unknown_scenario_or_peer_is_told() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        chosen(options(["--scenario", "nonsense"]))
    with pytest.raises(ValueError, match="nobody"):
        chosen(options(["--peer", "nobody"]))


def test_ours_are_there_without_any_other() -> None:
    _, peers, _ = chosen(options(["--peer", OURS]))

    assert [one.name for one in peers] == [OURS]


def test_a_machine_that_cannot_is_told_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["chaos", "--scenario", "none"])
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert main() == 2
    assert "root" in capsys.readouterr().err
