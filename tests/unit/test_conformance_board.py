"""What `./dev conformance` makes of its suites' results."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from conformance.board import known, play, tools
from conformance.board.known import Known, judge
from conformance.board.results import DIRECT, Run, Suite, Way
from conformance.board.table import table
from conformance.board.tools import GoTool
from conformance.connect import suite as connect
from conformance.connect.messages import fields, replaced
from conformance.fidelity.peers import Difference, cell, difference
from conformance.h2spec.suite import PLAIN, read
from support.dialogue import Heard
from support.fidelity import CODES, Outcome

FAST, REFERENCE = Way("fast"), Way("reference", tls=True)
DAY = dt.date(2026, 11, 28)
ENTRY = Known("h2spec", "8.1", DAY, "it is so")

REPORT = b"""<testsuites><testsuite package="http2/8.1" tests="3">
<testcase package="http2/8.1" classname="Good" time="0.5"></testcase>
<testcase package="http2/8.1" classname="Bad" time="2"><error>GOAWAY
 \x00\x01 Timeout</error></testcase>
<testcase package="http2/8.1" classname="Left out" time="0"><skipped></skipped></testcase>
</testsuite></testsuites>"""


def test_a_failure_that_is_not_in_the_list_is_unknown() -> None:
    run = Run("h2spec", FAST, 3, {"8.1": "timeout", "8.2": "closed"})

    assert judge([run], [ENTRY]) == ([f"h2spec ({FAST}): 8.2: closed"], [])


def test_a_known_failure_of_another_row_or_way_excuses_nothing() -> None:
    run = Run("h2spec", FAST, 3, {"8.1": "timeout"})
    others = [ENTRY._replace(row="connect"), ENTRY._replace(ways=[str(REFERENCE)])]

    assert len(judge([run], others).unknown) == 1


def test_a_known_failure_that_passes_on_all_its_ways_is_told() -> None:
    runs = [Run("h2spec", FAST, 3), Run("h2spec", REFERENCE, 3, {"8.1": "timeout"})]

    assert judge(runs, [ENTRY]).cured == []
    assert judge(runs[:1], [ENTRY]).cured == [ENTRY]


def test_a_known_failure_that_was_not_asked_for_is_not_cured() -> None:
    assert judge([Run("connect", FAST, 3)], [ENTRY]).cured == []


def test_the_table_has_a_row_a_suite_and_every_run_of_it() -> None:
    runs = [Run("h2spec", FAST, 146), Run("h2spec", DIRECT, 146, {"8.1": ""})]

    *_, line = table([*runs, runs[0]], {"h2spec": "HAProxy 146"}, [ENTRY]).splitlines()

    assert line == "| h2spec | 145/146 | 146/146, 146/146 |  |  |  | HAProxy 146 | 1 |"


def test_h2specs_report_is_read_with_its_raw_bytes_and_a_skipped_case_has_not_passed() -> None:
    run = read(PLAIN, FAST, REPORT)

    assert (run.cases, run.passed, run.seconds) == (3, 1, 2.5)
    assert run.failed == {
        "http2/8.1/2 Bad": "error GOAWAY Timeout",
        "http2/8.1/3 Left out": "skipped",
    }


TOLD = """FAILED: Basic/unary/error:
\tactual error {code: 13} does not match
\texpected code 12

Total cases: 9
7 passed, 2 failed
"""


def test_connects_failures_are_read_and_a_case_without_a_result_has_not_passed() -> None:
    run = connect.read("Connect", FAST, TOLD, 1.0)

    assert (run.cases, run.passed) == (9, 7)
    assert run.failed == {
        "Basic/unary/error": "actual error {code: 13} does not match expected code 12",
        "cases without a result": "1 of them",
    }


def test_a_runner_that_gave_up_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="no such file"):
        connect.read("Connect", FAST, "no such file", 1.0)


def test_a_message_changes_in_the_fields_asked_for_and_in_no_other() -> None:
    asked = b"\x0a\x03a/b" + b"\x18\x02" + b"\x32\x03::1" + b"\x38\x50" + b"\x88\x01\xac\x02"

    changed = replaced(asked, {6: b"127.0.0.1", 7: 40_000, 3: None})

    assert [(number, value) for number, value, _ in fields(changed)] == [
        *((1, b"a/b"), (17, 300)),
        *((6, b"127.0.0.1"), (7, 40_000)),
    ]


def suite(name: str, *runs: Run, tool: GoTool | None = None) -> Suite:
    def played(way: Way, _: Path) -> Iterator[Run]:
        yield from (run for run in runs if run.way == way)

    return Suite(name, {}, [FAST], [tool] if tool else [], played)


@pytest.mark.parametrize(
    ("failed", "status"), [({}, 0), ({"8.1": "known"}, 0), ({"8.2": "unknown"}, 1)]
)
def test_a_run_fails_by_what_is_not_known_to(
    failed: dict[str, str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "read", lambda: [ENTRY])
    suites = {"h2spec": suite("h2spec", Run("h2spec", FAST, 3, failed))}

    assert play.main(suites, [], tmp_path) == status
    assert "| h2spec |" in (tmp_path / "conformance.md").read_text()


def test_what_is_missing_is_named_and_the_other_suites_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tools, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    absent = GoTool("example.com/tool/cmd/asker", "v1.0.0")
    suites = {
        "asked": suite("asked", Run("asked", FAST, 3), tool=absent),
        "other": suite("other", Run("other", FAST, 3)),
    }

    assert play.main(suites, [], tmp_path) == play.MISSING
    told = capsys.readouterr().out
    assert re.search(
        r"not run: asked needs `go` on PATH, to build example.com/tool/cmd/asker", told
    )
    assert "other (fast, cleartext): 3/3" in told
    assert "asked (" not in told


def ending(kind: str, code: int = 0, fields: Sequence[tuple[bytes, bytes]] = ()) -> Outcome:
    """A call whose client heard this, and its backend nothing that is told here."""
    head = Heard("head", ((b":status", b"200"), *fields))
    return Outcome([head, Heard(kind, end=kind == "data", code=code)], [])


def test_what_a_peer_adds_is_no_difference_and_what_it_says_otherwise_is() -> None:
    wanted = ending("reset", 8, [(b"x-a", b"1"), (b"x-b", b"1"), (b"x-a", b"2")])
    reordered = ending("reset", 8, [(b"server", b"peer"), (b"x-b", b"1"), *wanted_fields("1", "2")])
    swapped = ending("reset", 8, [(b"x-b", b"1"), *wanted_fields("2", "1")])

    assert difference(wanted, reordered) == ("", "")
    assert difference(wanted, swapped) == ("client", "x-a changed")
    assert difference(wanted, ending("reset", 2)) == ("client", "RST 2")
    assert difference(wanted, ending("data")) == ("client", "END_STREAM")


def wanted_fields(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-a", value.encode()) for value in values]


def test_a_row_of_codes_says_what_happens_to_which() -> None:
    always = [Difference("client", "RST 2") if code != 2 else Difference("", "") for code in CODES]
    kept = [Difference("", "") if code == 7 else Difference("client", "RST 2") for code in CODES]

    assert cell([Difference("", "")] * len(CODES)) == "same"
    assert cell(always) == "client: RST 2, always"
    assert cell(kept).endswith("; 7: same")
