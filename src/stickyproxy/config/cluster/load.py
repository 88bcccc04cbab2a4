"""Files and a cluster's objects into one Settings, where each object stands alone.

A file is all or nothing; a cluster belongs to many people, and one's mistake must not hold up the
others. A broken document harms only itself: what it last said well stays in effect, and a Mapping of
which nothing good is known has its requests answered 503. Where two get in each other's way the older
one wins (files are older than everything), so that replicas decide alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from stickyproxy.config.cluster.groups import Candidate, admit
from stickyproxy.config.cluster.objects import (
    Decoded,
    Object,
    ObjectKey,
    bug_in,
    concerns_us,
    decode_object,
    key_of,
    undecodable,
)
from stickyproxy.config.cluster.pieces import (
    EDGE_LISTS,
    Piece,
    only_module,
    pieces_of,
    pieces_of_files,
    refuse_same_names,
    resolvers_of,
)
from stickyproxy.config.cluster.status import (
    CURRENT,
    ERROR,
    INACTIVE,
    LAST_GOOD,
    NOTHING,
    RUNNING,
    UNAVAILABLE,
    Combined,
    Good,
    Memory,
    PieceKey,
    Status,
)
from stickyproxy.config.cluster.unserved import unserved_match, unserved_route
from stickyproxy.config.load import (
    NO_ROUTES,
    Files,
    Settings,
    assembled,
    defaults_of,
    lines_of,
    settings_of,
    unused_services,
)
from stickyproxy.config.mappings.draft import Defaults, Draft, draft
from stickyproxy.config.mappings.remains import blame_remains
from stickyproxy.config.resources.items import Item, Resources
from stickyproxy.config.steps import Steps, finish
from stickyproxy.config.text.decode import Report
from stickyproxy.config.text.documents import Document
from stickyproxy.model import LoadBalancer, Route, RouteMatch


def combine(files: Files, objects: Iterable[Object], memory: Memory) -> Combined:
    """All at once; `combine_steps` leaves room for others in between."""
    return finish(combine_steps(files, objects, memory))


def combine_steps(files: Files, objects: Iterable[Object], memory: Memory) -> Steps[Combined]:
    """Yields after each bit of work. An object that is the same Python object as last time is not

    read again, so whoever keeps the objects must replace and not change them.
    """
    known: dict[ObjectKey, tuple[Object, Decoded]] = {}
    for found in filter(concerns_us, objects):
        key = key_of(found)
        before = memory.decoded.get(key)
        if before is not None and before[0] is found:
            known[key] = before
        else:
            known[key] = found, _decoded(found, files.process.ambassador_id)
        yield
    by_age = sorted((one for _, one in known.values()), key=lambda one: one.age)
    load = _Load(files, by_age, memory)
    settings = yield from load.settle()
    good = load.remembered()
    yield
    statuses = []
    for status in load.statuses():
        statuses.append(status)
        yield
    return Combined(
        settings=settings,
        statuses=tuple(statuses),
        problems=tuple(lines_of(load.report.problems)),
        memory=Memory(known, good),
    )


def _decoded(found: Object, ambassador_id: str) -> Decoded:
    try:
        return decode_object(found, ambassador_id)
    except Exception as bug:  # noqa: BLE001 - a bug of ours in one object must not stop the others
        return undecodable(found, bug)


class _Load:
    """One load, from decoded objects to Settings, statuses and what is to be remembered."""

    def __init__(self, files: Files, decoded: list[Decoded], memory: Memory) -> None:
        self.report = Report(warnings=list(files.warnings))
        self._files = files
        self._decoded = decoded
        self._good = memory.good
        self._pieces: list[Piece] = []
        self._candidates: dict[Piece, Candidate] = {}
        self._unserved: set[Piece] = set()
        self._used: dict[Piece, Item[Any]] = {}

    def settle(self) -> Steps[Settings]:
        """Until no document in use but a Mapping is blamed any more; each turn takes out at least one."""
        self._pieces += pieces_of_files(self._files.resources, self._good)
        for one in self._decoded:
            _add(self.report, one.report)
            self._pieces += pieces_of(one, self._good)
            yield
        refuse_same_names(self._pieces, self.report)
        self._module = only_module(self._pieces, self.report)
        self._resolvers = resolvers_of(self._files.resources, self._decoded, self.report)
        refused: dict[Document, list[str]] = {}
        while True:
            attempt = Report()
            resources = self._resources(refused)
            settings = yield from self._attempt(resources, attempt)
            blamed = [item for item in self._used.values() if item.document in attempt.blamed]
            if not blamed:
                break
            for item in blamed:
                refused[item.document] = attempt.blamed[item.document]
        for document, said in refused.items():
            for line in said:
                self.report.blame(document, line)
        _add(self.report, attempt)
        return replace(settings, warnings=tuple(lines_of(self.report.warnings)))

    # --- what is in use besides Mappings ---

    def _resources(self, refused: dict[Document, list[str]]) -> Resources:
        """Current documents; instead of a broken one what it last was; instead of that nothing."""
        self._used = {}
        found = Resources(
            mappings=self._files.resources.mappings,
            resolvers=self._resolvers,
            secrets_unread=not self._files.process.kube_secrets,
        )
        for name in EDGE_LISTS:
            getattr(found, name).extend(getattr(self._files.resources, name))
        for piece in self._pieces:
            item = self._usable(piece, refused)
            if item is None:
                # With any Host, names that have none are 404; a broken one must not open them all.
                found.hosts += [piece.item] if piece.place == "hosts" and piece.item else []
                continue
            if piece is self._module:
                found.module = item
            elif piece.place:
                getattr(found, piece.place).append(item)
            else:
                continue
            self._used[piece] = item
        return found

    def _usable(self, piece: Piece, refused: dict[Document, list[str]]) -> Item[Any] | None:
        candidates = (piece.item, piece.last.item if piece.last is not None else None)
        for item in candidates:
            if item is not None and not (
                item.document in self.report.blamed or item.document in refused
            ):
                return item
        return None

    # --- Mappings ---

    def _attempt(self, resources: Resources, report: Report) -> Steps[Settings]:
        files = self._files
        defaults, balancer = defaults_of(resources, files.options, files.process, report)
        settings = settings_of(files, resources, (), (), report)
        self._candidates = {}
        for piece in self._pieces:
            if piece.is_mapping:
                self._candidates[piece] = self._candidate(piece, defaults, report)
                yield
        yield from admit(list(self._candidates.values()), report)
        return (yield from self._assembled(settings, defaults, balancer, report))

    def _candidate(self, piece: Piece, defaults: Defaults, report: Report) -> Candidate:
        last = piece.last.draft if piece.last is not None else None
        item = piece.item
        if item is None or (item.spec is not None and piece.document in self.report.blamed):
            return Candidate(None, last)
        try:
            if item.spec is None:
                blame_remains(item, defaults, report)
                return Candidate(None, last)
            return Candidate(draft(item, defaults, report), last)
        except Exception as bug:  # noqa: BLE001 - as above
            item.problem(report, bug_in(bug))
            return Candidate(None, last)

    def _assembled(
        self,
        settings: Settings,
        defaults: Defaults,
        balancer: LoadBalancer,
        report: Report,
    ) -> Steps[Settings]:
        files = self._files
        served = [one.served for one in self._candidates.values() if one.served is not None]
        routes, clusters = yield from assembled(
            served, balancer, files.options, files.process, report
        )
        yield
        routes += self._unserved_routes(served)
        unused_services(defaults, files.options, report)
        if not routes:
            report.warnings.append(NO_ROUTES)
        return replace(settings, routes=tuple(routes), clusters=tuple(clusters))

    def _unserved_routes(self, served: Iterable[Draft]) -> list[Route]:
        """For broken Mappings, unless a good one has the same match and so answers for it."""
        taken: dict[RouteMatch, Route | None] = dict.fromkeys(one.match for one in served)
        self._unserved = set()
        for piece in self._pieces:
            one = self._candidates.get(piece)
            if one is None or one.served is not None or piece.item is None:
                continue
            match = unserved_match(piece.item)
            if match is None:
                continue
            if match not in taken:
                taken[match] = unserved_route(piece.item, match)
            if taken[match] is not None:
                self._unserved.add(piece)
        return [route for route in taken.values() if route is not None]

    # --- what is told and kept ---

    def statuses(self) -> Iterable[Status]:
        for piece in self._pieces:
            said = self.report.blamed.get(piece.document)
            if piece.key.owner is None and said is None:
                continue
            state = RUNNING if said is None else INACTIVE if piece.superseded else ERROR
            serves, generation = self._serves(piece, broken=said is not None)
            yield Status(
                key=piece.key,
                origin=piece.document.at(piece.document.line),
                state=state,
                reason="; ".join(lines_of(_without_place(line, piece) for line in said or ())),
                serves=serves,
                generation=piece.generation,
                served_generation=generation,
                warnings=tuple(lines_of(self.report.warned.get(piece.document, ()))),
            )

    def _serves(self, piece: Piece, *, broken: bool) -> tuple[str, int]:
        """Which version is in effect, and of which generation it is."""
        candidate = self._candidates.get(piece)
        if candidate is not None:
            in_use = candidate.served is not None
            current = candidate.is_current
        else:
            used = self._used.get(piece)
            in_use = used is not None or not broken
            current = used is piece.item or not broken
        if current and in_use:
            return CURRENT, piece.generation
        if in_use and piece.last is not None:
            return LAST_GOOD, piece.last.generation
        return (UNAVAILABLE if piece in self._unserved else NOTHING), 0

    def remembered(self) -> dict[PieceKey, Good]:
        """Of each document that is still there: itself if it is good, else what was remembered."""
        kept: dict[PieceKey, Good] = {}
        for piece in self._pieces:
            candidate = self._candidates.get(piece)
            good = self._used.get(piece) is piece.item
            if candidate is not None:
                good = candidate.is_current
            if good and piece.item is not None:
                served = candidate.draft if candidate is not None else None
                kept[piece.key] = Good(piece.item, piece.generation, served)
            elif piece.last is not None:
                kept[piece.key] = piece.last
        return kept


def _add(report: Report, more: Report) -> None:
    report.problems += more.problems
    report.warnings += more.warnings
    for document, said in more.blamed.items():
        report.blamed.setdefault(document, []).extend(said)
    for document, said in more.warned.items():
        report.warned.setdefault(document, []).extend(said)


def _without_place(line: str, piece: Piece) -> str:
    """A status stands at its object; where in an annotation is still worth a number."""
    return line.removeprefix(f"{piece.document.file}: ").removeprefix(f"{piece.document.file}:")
