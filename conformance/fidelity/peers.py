"""The fidelity matrix through us and through the peers that are here, as a table.

All are judged mildly here: fields that are added and the order of names are not counted, and a call
that goes nowhere is told by what was heard until then. Ours has to be equal in the suite beside this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.children import Children, free_port
from bench.job import Job
from bench.peers import Peer, present, start
from conformance.fidelity.suite import direct
from support.dialogue import Backend, Heard, backend_of_frames, scene
from support.fidelity import BY_CODE, CODES, ROWS, Outcome, Play, told, without_ours

PATIENCE = 1.0
"""Seconds of silence after which a peer has nothing more to say; ours needs 10 ms for a whole row."""
SAME = "same"


class Difference(NamedTuple):
    """`side` heard what `told` says; "" as `told`: nothing else than it should."""

    side: str
    told: str


def main(output: Path) -> None:
    peers, missing = present()
    if missing:
        print(f"not here, and left out: {', '.join(missing)}")
    wanted = {name: direct(play) for name, play in ROWS.items()}
    columns = {}
    for peer in peers:
        columns[f"{peer.name} {peer.version}"] = found = _compared(peer, output, wanted)
        same = sum(not one.told for one in found.values())
        print(f"{peer.name} {peer.version}: {same} of {len(found)} the same", flush=True)
    text = _table(columns)
    (output / "fidelity.md").write_text(text + "\n")
    print(f"\n{text}")


# --- one peer ---


def _compared(peer: Peer, output: Path, wanted: dict[str, Outcome]) -> dict[str, Difference]:
    """A proxy a row, so that none suffers from what a peer made of the one before; ours has one for all."""
    found: dict[str, Difference] = {}
    rows = [ROWS] if peer.ours else [{name: play} for name, play in ROWS.items()]
    for number, some in enumerate(rows):
        folder = output / f"{peer.name}-{number}"
        with backend_of_frames() as backend, _running(peer, folder, backend) as port:
            for name, play in some.items():
                found[name] = difference(wanted[name], _attempted(backend, port, play))
    return found


@contextmanager
def _running(peer: Peer, folder: Path, backend: Backend) -> Iterator[int]:
    folder.mkdir(parents=True)
    job = Job(folder, free_port(), free_port(), (backend.port,), log=False)
    with Children() as children:
        start(peer, job, children)
        yield job.port


def _attempted(backend: Backend, port: int, play: Play) -> Outcome:
    """As far as it goes."""
    with scene(backend, port, patience=PATIENCE) as s:
        try:
            play(s)
            s.settle()
        except (AssertionError, OSError):
            pass
        taken = s.taken[0].heard if s.taken else []
        return Outcome(s.asked[0].heard, [without_ours(heard) for heard in taken])


# --- what is different ---


def difference(wanted: Outcome, found: Outcome) -> Difference:
    """What a backend hears of a stream that it reset itself is left out."""
    if text := _said_otherwise(wanted.client, found.client):
        return Difference("client", text)
    if any(heard.kind == "reset" for heard in wanted.client):
        return Difference("", "")
    return Difference("backend", _said_otherwise(wanted.backend, found.backend))


def _said_otherwise(wanted: Sequence[Heard], found: Sequence[Heard]) -> str:
    if told(wanted) != told(found):
        return told(found)
    if [_frame(one) for one in wanted] != [_frame(one) for one in found]:
        return f"heard {', '.join(one.kind for one in found)}"
    lost = dict.fromkeys(
        name.decode()
        for before, after in zip(wanted, found, strict=True)
        for name, values in _by_name(before).items()
        if values != _by_name(after).get(name)
    )
    return f"{', '.join(lost)} changed" if lost else ""


def _frame(heard: Heard) -> Heard:
    return heard._replace(fields=())


def _by_name(heard: Heard) -> dict[bytes, list[bytes]]:
    """The order of values counts within a name; the authority is a setting of most proxies."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in heard.fields:
        if name != b":authority":
            found.setdefault(name, []).append(value)
    return found


# --- the table ---


def _table(columns: dict[str, dict[str, Difference]]) -> str:
    grouped = {name: [f"{name}, code {code}" for code in CODES] for name in BY_CODE}
    single = {name: [name] for name in ROWS if name.partition(", code ")[0] not in BY_CODE}
    lines = [["", *columns], ["---"] * (len(columns) + 1)]
    lines += [
        [name, *(cell([found[row] for row in rows]) for found in columns.values())]
        for name, rows in {**grouped, **single}.items()
    ]
    sums = [sum(not one.told for one in found.values()) for found in columns.values()]
    lines.append([f"the same, of {len(ROWS)}", *map(str, sums)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(found: Sequence[Difference]) -> str:
    """Of a row; of several codes, what happens to which."""
    if len(found) == 1:
        return _words(found[0])
    by_words: dict[str, list[str]] = {}
    for code, one in zip(CODES, found, strict=True):
        by_words.setdefault(_words(one), []).append(str(code))
    for words in by_words:
        others = [codes for other, codes in by_words.items() if other != words]
        if not others or others == [[words.rpartition("RST ")[2]]]:  # what it always says, is said
            return words if words == SAME else f"{words}, always"
    return "; ".join(f"{', '.join(codes)}: {words}" for words, codes in by_words.items())


def _words(one: Difference) -> str:
    return f"{one.side}: {one.told}" if one.told else SAME
