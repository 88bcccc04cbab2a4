"""The same job in everybody's words, and what the bench makes of its results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from bench import envoy, haproxy, nghttpx, nginx, pages, picture, report, sticky
from bench.cases import Case, Figure, Sample, added
from bench.catalogue import CASES
from bench.job import Job
from stickyproxy.config.load import load

JOB = Job(Path("/run/x"), port=1000, admin=1001, backends=(2001, 2002, 2003))
TLS = replace(JOB, tls=(Path("/run/c.pem"), Path("/run/k.pem")))
QUIET = replace(JOB, log=False)
H1 = replace(JOB, h1=True)


def words(job: Job) -> dict[str, str]:
    """What each proxy is told, as one text."""
    return {
        "stickyproxy": sticky.document(job) + " ".join(sticky.argv(["stickyproxy"], job)),
        "envoy": envoy.config(job) + " ".join(envoy.argv("envoy", job)),
        "nginx": nginx.config(job, root=False) + " ".join(nginx.argv("nginx", job)),
        "haproxy": haproxy.config(job, files=65_536) + " ".join(haproxy.argv("haproxy", job)),
        "nghttpx": " ".join(nghttpx.argv("nghttpx", job)),
    }


@pytest.mark.parametrize("name", sorted(words(JOB)))
def test_everybody_gets_the_same_backends_and_port(name: str) -> None:
    told = words(JOB)[name]

    assert all(str(port) in told for port in (*JOB.backends, JOB.port))


@pytest.mark.parametrize("name", ["stickyproxy", "envoy", "nginx", "haproxy"])
def test_everybody_who_can_hashes_the_user_consistently(name: str) -> None:
    told = words(JOB)[name]

    assert "x-user-id" in told or "x_user_id" in told
    assert any(word in told for word in ("maglev", "MAGLEV", "consistent"))


def test_nghttpx_hashes_the_client_s_address_for_lack_of_headers() -> None:
    assert words(JOB)["nghttpx"].count("affinity=ip") == 3


LOGGING = {
    "stickyproxy": "--access-log on",
    "envoy": "FileAccessLog",
    "nginx": "access_log /run/x/access.log",
    "haproxy": "log stdout",
    "nghttpx": "--accesslog-file",
}


@pytest.mark.parametrize("name", sorted(LOGGING))
def test_a_log_is_written_by_all_or_by_none(name: str) -> None:
    assert LOGGING[name] in words(JOB)[name]
    assert LOGGING[name] not in words(QUIET)[name]


@pytest.mark.parametrize("name", sorted(words(JOB)))
def test_tls_is_downstream_only(name: str) -> None:
    assert words(JOB)[name] != words(TLS)[name]
    certificate = "both.pem" if name == "haproxy" else "/run/c.pem"
    assert certificate in words(TLS)[name]


@pytest.mark.parametrize("name", sorted(words(JOB)))
def test_http_1_reaches_the_backends_as_such(name: str) -> None:
    assert words(JOB)[name] != words(H1)[name]


def test_our_own_document_is_taken_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "bench.yaml"
    path.write_text(sticky.document(JOB))

    loaded = load([path], {})

    assert [str(notice) for notice in loaded.warnings] == []


def test_endpoints_of_envoy_s_file_are_those_of_the_cluster_it_asks_for() -> None:
    told = json.loads(envoy.members_file((5, 6), 3))
    (resource,) = told["resources"]
    cluster = json.loads(envoy.config(JOB, discovered=True))["static_resources"]["clusters"][0]

    assert resource["cluster_name"] == cluster["name"]
    assert len(resource["endpoints"][0]["lb_endpoints"]) == 2
    assert "load_assignment" not in cluster


def test_haproxy_asks_for_no_more_connections_than_there_are_files() -> None:
    assert "maxconn 9750\n" in haproxy.config(JOB, files=20_000)


# --- results --------------------------------------------------------------------------------------

CASE = Case(
    "real",
    "calls | users",
    (Figure("cpu_us", "CPU us/call", goal=1.0, compared=True), Figure("rate", "calls/s", 0)),
)


def sample(name: str, number: int, cpu: float, *, log: bool = True, void: str = "") -> Sample:
    figures = {} if void else {"cpu_us": cpu, "rate": 1e6 / cpu}
    return Sample("real", name, log, number, figures, void)


SAMPLES = [
    sample("stickyproxy", 0, 40.0),
    sample("envoy", 0, 50.0),
    sample("stickyproxy", 1, 60.0),
    sample("envoy", 1, 60.0),
    sample("stickyproxy", 2, 1.0, void="100 calls, but 99 log lines"),
    sample("envoy", 2, 55.0),
    sample("envoy", 0, 45.0, log=False),
]


def test_a_void_round_counts_nowhere_and_is_named() -> None:
    text = report.table(CASE, SAMPLES)

    assert "50.0 [40.0..60.0]" in text
    assert "0.90 [0.80..1.00] (goal 1)" in text
    assert "void: stickyproxy, log on, round 3: 100 calls, but 99 log lines" in text


def test_columns_are_aligned() -> None:
    lines = report.aligned([["", "a", "bb"], ["long name", "1", "22"], ["x", "333", ""]])

    assert lines == ["               a  bb", "  long name    1  22", "  x          333"]


def test_a_ratio_needs_an_envoy_with_the_same_log() -> None:
    quiet = [sample("stickyproxy", 0, 40.0, log=False), sample("envoy", 0, 50.0)]

    assert report.ratio(report.by_subject(quiet), ("stickyproxy", False), "cpu_us") is None


def result() -> dict[str, Any]:
    return {
        "when": "2026-01-02T03:04:05Z",
        "machine": {"cores": 2, "kernel": "6.1", "python": "3.11.7", "load_before": 0.5},
        "versions": {"stickyproxy": "0.1.0", "envoy": "1.40.0"},
        "missing": ["nginx"],
        "rounds": 3,
        "quick": False,
        "cases": [report.as_json(CASE, SAMPLES, ["half as many <connections>"])],
    }


def test_json_keeps_every_round() -> None:
    case = result()["cases"][0]
    ours = case["subjects"][0]

    assert ours["name"] == "stickyproxy"
    assert ours["figures"]["cpu_us"]["rounds"] == [40.0, 60.0]
    assert ours["figures"]["cpu_us"]["times_envoy"] == pytest.approx(0.9)
    assert len(ours["void"]) == 1


def test_the_picture_is_well_formed_and_shows_ours_beside_envoy() -> None:
    drawn = picture.draw(result())
    root = ET.fromstring(drawn)  # noqa: S314 (we wrote it)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]

    assert "real" in texts
    assert "50.0  (0.90x)" in texts
    assert "stickyproxy 0.1.0" in texts


def test_a_bar_that_is_too_long_is_cut_and_says_so() -> None:
    told = result()
    told["cases"][0]["subjects"][0]["figures"]["cpu_us"] |= {"median": 5000.0, "times_envoy": 99}

    assert "5,000  (99.00x) →" in picture.draw(told)


def test_one_with_more_workers_has_its_colour_and_says_so_at_its_bar() -> None:
    told = result()
    told["cases"][0]["subjects"][0]["name"] = "stickyproxy x2"
    drawn = picture.draw(told)

    assert "(0.90x), x2" in drawn
    assert "stickyproxy x2" not in drawn
    assert picture.OTHER not in drawn


def test_a_section_replaces_itself_and_nothing_else() -> None:
    fresh = pages.section(result())
    once = pages.placed("# Performance\n\nWords.\n", fresh)

    assert once == f"# Performance\n\nWords.\n\n{fresh}"
    assert pages.placed(once + "More.\n", fresh) == once + "More.\n"
    assert "Missing" not in fresh
    assert "missing: nginx" in fresh
    assert fresh.count("| stickyproxy | on |") == 1


def test_a_page_that_is_half_marked_is_left_alone() -> None:
    with pytest.raises(ValueError, match="no <!-- /bench"):
        pages.placed(pages.BEGIN, "x")


def test_what_a_proxy_adds_is_over_the_same_round_s_backends() -> None:
    assert added({"p50": 90.0, "p99": 200.0}, {"p50": 30.0}) == {"added_p50": 60.0}


def test_every_case_has_a_name_of_its_own_and_a_way_to_run() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.pure or case.alone or (case.load and case.judge) for case in CASES)
