"""`python -m chaos`: measure, show, write; `selftest`: try every fault; `soak`: look for leaks."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import pages
from bench.children import ROOT
from bench.limits import raise_files
from bench.progress import Progress
from chaos import page, picture, report, selftest, soak
from chaos.goals import verdicts
from chaos.needs import missing
from chaos.network import sweep
from chaos.peers import BASE, Peer, present
from chaos.rounds import AGAIN, Rounds, Turn, turns, words
from chaos.samples import Sample, saved
from chaos.scenarios import FAULTS, GROUPS, QUICK, TRAFFIC, Pace, Scenario, named, scenario
from chaos.summary import Summary, summaries, summarised

Json = dict[str, Any]

RUNS = 5
NICE = -10  # above what else the machine does; the same for the proxies and for what measures them
META = "run.json"  # beside the runs' folder: versions, date, machine


def options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev chaos",
        description="What proxies do when a connection, a link or a host goes bad.",
        epilog=f"Scenarios: [TRAFFIC.]FAULT; traffic {', '.join(filter(None, TRAFFIC))}; faults "
        f"{', '.join(FAULTS)}, lossN, lossallN; groups {', '.join(GROUPS)}.",
    )
    parser.add_argument(
        "what", nargs="?", choices=("measure", "selftest", "soak"), default="measure"
    )
    parser.add_argument(
        "--scenario", action="append", metavar="NAME", help="repeatable (default: main, twilio)"
    )
    parser.add_argument("--peer", action="append", metavar="NAME", help="repeatable (default: all)")
    parser.add_argument("--runs", type=int, help=f"runs a case ({RUNS}; quick: 1)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first run")
    parser.add_argument("--quick", action="store_true", help="shorter runs, one a case")
    parser.add_argument(
        "--jobs", type=int, default=1, help="labs side by side (1; 2 on 2 cores go)"
    )
    parser.add_argument("--out", type=Path, default=Path("build/chaos"), help="folder of the runs")
    parser.add_argument(
        "--keep", action="store_true", help="add to the runs that are in the folder"
    )
    parser.add_argument("--show", action="store_true", help="measure nothing: report the folder")
    parser.add_argument("--write-docs", action="store_true", help="also docs/resilience.md")
    parser.add_argument(
        "--rival",
        action="append",
        default=[],
        metavar="NAME=COMMAND",
        help="another build of stickyproxy beside this one; repeatable",
    )
    parser.add_argument(
        "--minutes", type=int, default=soak.MINUTES, help=f"of the soak ({soak.MINUTES})"
    )
    parser.add_argument("--proxy-args", default="", help="more arguments for stickyproxy run")
    return parser.parse_args(argv)


def chosen(asked: argparse.Namespace) -> tuple[list[Scenario], list[Peer], list[str]]:
    """Raises ValueError for names that mean nothing."""
    pace = QUICK if asked.quick else Pace()
    names = named(asked.scenario or ["main", "twilio"])
    scenarios = [scenario(name, pace) for name in names]
    peers, absent = present(asked.rival, asked.proxy_args)
    if asked.peer:
        known = {peer.name for peer in peers}
        if unknown := [name for name in asked.peer if name not in known]:
            raise ValueError(f"no such peer here: {', '.join(unknown)} (of {', '.join(known)})")
        peers = [peer for peer in peers if peer.name in asked.peer]
    return scenarios, peers, absent


def measured(asked: argparse.Namespace, progress: Progress) -> int:
    """Exit code."""
    try:
        scenarios, peers, absent = chosen(asked)
    except ValueError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    if problems := missing(delay=any(one.setup.rtt for one in scenarios)):
        return lacking(problems)
    sweep()
    runs = asked.runs or (1 if asked.quick else RUNS)
    todo = turns(scenarios, peers, runs, asked.first)
    if not asked.keep:
        for old in asked.out.glob("*.json"):
            old.unlink()
    asked.out.mkdir(parents=True, exist_ok=True)
    meta = facts(asked, peers, absent, runs)
    if asked.keep and meta_of(asked.out).exists():
        meta = joined(kept(asked.out), meta)
    progress.print(", ".join(f"{name} {said}" for name, said in meta["versions"].items()))
    for name in absent:
        progress.print(f"missing, left out: {name}")
    progress.print(plan(todo, asked.jobs))
    meta_of(asked.out).write_text(json.dumps(meta, indent=1) + "\n")
    with contextlib.suppress(PermissionError):
        os.nice(NICE)
    again = 0 if asked.quick else AGAIN
    samples = Rounds(todo, asked.jobs, asked.out, progress, again=again).run(line)
    progress.clear()
    publish(asked)
    return 1 if any(sample.void for sample in samples) else 0


def lacking(problems: Sequence[str]) -> int:
    print("chaos: the lab cannot run here; it needs", file=sys.stderr)
    print("\n".join(f"  {one}" for one in problems), file=sys.stderr)
    return 2


def plan(todo: Sequence[Turn], jobs: int) -> str:
    shortest = sum(turn.shortest for turn in todo) / jobs
    longest = sum(turn.longest for turn in todo) / jobs
    return f"{len(todo)} runs, {words(shortest)} to {words(longest)}"


def line(sample: Sample) -> str:
    """A run in a line, as soon as it is made."""
    title = f"{sample.scenario:16} {sample.peer:12} #{sample.number + 1}"
    if sample.void:
        return f"{title} void: {sample.void}"
    one = summarised([sample])
    late = f" (d: load {sample.late_ms:.0f} ms late)" if sample.disturbed else ""
    back = "" if one.back is None else f", back after {one.back:.0f} ms"
    return (
        f"{title} p50 {report.ms(one.p50)}, p99 {report.ms(one.p99)}, p99.9 {report.ms(one.p999)} ms, "
        f"failed or > 1 s {one.outages.found} of {one.calls}, attempts {one.attempts:.3f}, "
        f"stay {100 * one.stays:.0f} %, connections {one.opened:g}{back}{late}"
    )


def facts(asked: argparse.Namespace, peers: Sequence[Peer], absent: list[str], runs: int) -> Json:
    versions = {peer.name.partition("-")[0]: peer.version for peer in peers}
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": len(os.sched_getaffinity(0)),
        },
        "versions": versions,
        "peers": [peer.name for peer in peers],
        "missing": [name.partition(" ")[0] for name in absent],
        "runs": runs,
        "jobs": asked.jobs,
        "quick": asked.quick,
    }


def meta_of(folder: Path) -> Path:
    return folder.parent / f"{folder.name}-{META}"


def kept(folder: Path) -> Json:
    """What is known of the runs that are in the folder."""
    return dict(json.loads(meta_of(folder).read_text()))


def joined(before: Json, now: Json) -> Json:
    """Of runs that were added: also the peers that were there already, and are not lacking then."""
    peers = [*before.get("peers", ()), *now["peers"]]
    here = {name.partition("-")[0] for name in peers}
    return {
        **now,
        "versions": {**before.get("versions", {}), **now["versions"]},
        "peers": list(dict.fromkeys(peers)),
        "missing": [name for name in now["missing"] if name not in here],
    }


def publish(asked: argparse.Namespace) -> None:
    """Tables, JSON and picture of all runs in the folder; with --write-docs the page too."""
    samples = list(saved(asked.out))
    found = summaries(samples)
    meta = kept(asked.out)
    order = [BASE, *(peer for peer in dict.fromkeys(s.peer for s in samples) if peer != BASE)]
    order = [name for name in meta["peers"] if name in order] + [
        name for name in order if name not in meta["peers"]
    ]
    show(found, order)
    files = {asked.out.parent / f"{asked.out.name}.json": table_json(found, meta)}
    drawn = picture.chosen(samples)
    if drawn:
        files[asked.out.parent / f"{asked.out.name}.svg"] = picture.draw(drawn)
    if asked.write_docs:
        files |= documents(found, meta, order, drawn)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    print(f"\nwritten: {', '.join(map(str, files))}; the runs are in {asked.out}")


def show(found: dict[tuple[str, str], Summary], peers: Sequence[str]) -> None:
    for name in report.scenarios(found):
        print(f"\n{name}: {scenario(name, Pace()).title}")
        print("\n".join(report.aligned(report.table(found, name, peers))))
        for note in report.footnotes(found[name, p] for p in peers if (name, p) in found):
            print(f"  {note}")
    goals = report.goals(verdicts(found))
    if goals[1:]:
        print("\ngoals")
        print("\n".join(report.aligned(goals)).replace("**", ""))


def table_json(found: dict[tuple[str, str], Summary], meta: Json) -> str:
    cases = [asdict(one) for one in found.values()]
    reached = [
        {**asdict(one.goal), "reached": one.reached, "met": one.met} for one in verdicts(found)
    ]
    return json.dumps(finite({**meta, "cases": cases, "goals": reached}), indent=1) + "\n"


def finite(value: Any) -> Any:
    """JSON has no infinity: what never happened is null."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [finite(one) for one in value]
    return None if value == math.inf else value


def documents(
    found: dict[tuple[str, str], Summary], meta: Json, peers: Sequence[str], drawn: list[Sample]
) -> dict[Path, str]:
    docs = ROOT / "docs"
    path = docs / "resilience.md"
    fresh = page.section(found, meta, peers, picture=bool(drawn))
    files = {
        path: pages.placed(path.read_text(), fresh, page.MARKS),
        docs / "resilience.json": table_json(found, meta),
    }
    if drawn:
        files[docs / page.PICTURE] = picture.draw(drawn)
    return files


def main() -> int:
    asked = options(sys.argv[1:])
    if asked.show:
        publish(asked)
        return 0
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` may have it ignored
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    raise_files()
    progress = Progress()
    try:
        if asked.what == "selftest":
            problems = missing(delay=True, icmp=True)
            return lacking(problems) if problems else selftest.main()
        if asked.what == "soak":
            problems = missing(delay=False)
            return lacking(problems) if problems else soak.main(asked.minutes, progress)
        return measured(asked, progress)
    except KeyboardInterrupt:
        progress.clear()
        print("chaos: interrupted; everything it started has ended", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
