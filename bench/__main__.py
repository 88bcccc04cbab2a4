"""`python -m bench`: measure, show, write."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import certificate, pages, picture, report, tables_page, tables_picture
from bench.cases import QUICK, Case, Pace, Plan
from bench.catalogue import CASES
from bench.children import ROOT
from bench.limits import raise_files
from bench.peers import OURS, WISHES, Peer, find, present, version
from bench.progress import Progress
from bench.rounds import measure
from bench.tables import TABLES


def options(argv: list[str]) -> argparse.Namespace:
    names = list(dict.fromkeys(n for case in CASES for n in (family(case), case.name)))
    parser = argparse.ArgumentParser(
        prog="./dev bench", description="What a call costs here and in the peers, in one run."
    )
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        choices=names,
        help="only this; repeatable: " + ", ".join(names),
    )
    parser.add_argument("--peer", action="append", help="only this beside us; repeatable; none: -")
    parser.add_argument("--rounds", type=int, help="alternating rounds (5; quick: 3)")
    parser.add_argument("--quick", action="store_true", help="shorter blocks, fewer rounds")
    parser.add_argument("--log", choices=("on", "off", "both"), default="both", help="access log")
    parser.add_argument(
        "--rival",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another build of stickyproxy beside this one; repeatable",
    )
    parser.add_argument("--proxy-args", default="", help="more arguments for stickyproxy run")
    parser.add_argument(
        "--json", type=Path, default=Path("build/bench.json"), help="where to write JSON"
    )
    parser.add_argument("--svg", type=Path, default=Path("build/bench.svg"), help="the picture")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="also docs/performance.md's section, docs/bench.svg and docs/bench.json",
    )
    parser.add_argument(
        "--show", type=Path, metavar="JSON", help="measure nothing: make the rest of an earlier run"
    )
    return parser.parse_args(argv)


def family(case: Case) -> str:
    """What several cases are called together: `bulk` of `bulk-1mb-up`."""
    return case.name.partition("-")[0]


def chosen_cases(names: Sequence[str] | None) -> list[Case]:
    return [c for c in CASES if not names or c.name in names or family(c) in names]


def chosen_peers(asked: argparse.Namespace) -> tuple[list[Peer], list[str]]:
    peers, missing = present(asked.rival, asked.proxy_args)
    if asked.peer:
        peers = [peer for peer in peers if peer.ours or peer.name in asked.peer]
        missing = [name for name in missing if name in asked.peer]
    return peers, missing


def obstacle() -> str:
    """Why nothing can be measured here; empty if it can."""
    if sys.platform != "linux":
        return f"CPU time of a process tree is read from /proc, which {sys.platform} lacks"
    if not find("h2load"):
        return f"h2load is missing ({WISHES['h2load']})"
    return ""


def machine() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "h2load": version(find("h2load") or "h2load", "--version"),
    }


def run(asked: argparse.Namespace, folder: Path, progress: Progress) -> dict[str, Any]:
    peers, missing = chosen_peers(asked)
    here = machine()
    progress.print(", ".join(f"{peer.name} {peer.version}" for peer in peers))
    for name in missing:
        progress.print(f"missing: {name} ({WISHES[name]})")
    pace = QUICK if asked.quick else Pace()
    pace = Pace(asked.rounds or pace.rounds, pace.budget, pace.patience, pace.warm)
    logs = {"on": [True], "off": [False], "both": [True, False]}[asked.log]
    cases = chosen_cases(asked.case)
    plan = Plan(peers, pace, logs, certificate.make(folder), progress.say)
    results = []
    for at, case in enumerate(cases, 1):
        progress.stage = f"[{at}/{len(cases)}] {case.name}"
        samples, notes = measure(case, plan, folder / case.name)
        progress.print("\n" + report.table(case, samples))
        for line in notes:
            progress.print(f"  {line}")
        results.append(report.as_json(case, samples, notes))
    versions = {peer.name: peer.version for peer in peers}
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": here,
        "versions": versions,
        "missing": missing,
        "rounds": pace.rounds,
        "quick": asked.quick,
        "cases": results,
    }


def write(asked: argparse.Namespace, result: dict[str, Any]) -> None:
    files = {asked.json: json.dumps(result, indent=1) + "\n", asked.svg: picture.draw(result)}
    if asked.write_docs:
        files |= documents(result, ROOT / "docs")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    print(f"\nwritten: {', '.join(map(str, files))}")


def documents(result: dict[str, Any], docs: Path) -> dict[Path, str]:
    """Files of the documentation: `tables` has a section and a picture of its own."""
    page = docs / "performance.md"
    text = page.read_text() if page.exists() else ""
    files = {}
    for case in result["cases"]:
        if case["case"] == TABLES.name:
            fresh = tables_page.section(case, result["when"])
            text = pages.placed(text, fresh, (tables_page.BEGIN, tables_page.END))
            files[docs / "images" / "tables.svg"] = tables_picture.draw(case)
    others = {**result, "cases": [c for c in result["cases"] if c["case"] != TABLES.name]}
    if others["cases"]:
        text = pages.placed(text, pages.section(others))
        files[docs / "bench.json"] = json.dumps(others, indent=1) + "\n"
        files[docs / "bench.svg"] = picture.draw(others)
    files[page] = text
    return files


def incomplete(result: dict[str, Any]) -> list[str]:
    """Cases in which we have no figure, or a round of ours was void."""
    wrong = []
    for case in result["cases"]:
        ours = [s for s in case["subjects"] if case.get("pure") or s["name"] == OURS]
        if not any(s["figures"] for s in ours) or any(s["void"] for s in ours):
            wrong.append(case["case"])
    return wrong


def main() -> int:
    asked = options(sys.argv[1:])
    if asked.show:
        write(asked, json.loads(asked.show.read_text()))
        return 0
    pure = all(case.pure for case in chosen_cases(asked.case))
    if not pure and (problem := obstacle()):
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` may have it ignored
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    raise_files()
    progress = Progress()
    try:
        with tempfile.TemporaryDirectory(prefix="stickyproxy-bench-") as folder:
            result = run(asked, Path(folder), progress)
    except KeyboardInterrupt:
        progress.clear()
        print("bench: interrupted; everything it started has ended", file=sys.stderr)
        return 130
    write(asked, result)
    if wrong := incomplete(result):
        print(f"bench: not all of our own rounds count in {', '.join(wrong)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
