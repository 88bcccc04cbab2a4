"""Mappings of a cluster in groups, where trouble between two harms only the younger one.

Files are refused whole when weights exceed 100 or balancers differ. In a cluster the older member
stays, and the younger one is as it last was, if that fits, or left out. Age is the same for every
replica, so all of them decide alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stickyproxy.config.mappings.draft import Draft
from stickyproxy.config.mappings.grouping import refuse_balancer, refuse_weights, total_weight
from stickyproxy.config.mappings.roles import misfits
from stickyproxy.config.steps import Steps
from stickyproxy.config.text.decode import Report
from stickyproxy.model import RouteMatch

Groups = dict[RouteMatch, list[Draft]]


@dataclass(slots=True)
class Candidate:
    """A Mapping that wants to be served. `draft` None: broken by itself; `last`: as it last was.

    `served` is what became of it.
    """

    draft: Draft | None
    last: Draft | None = None
    served: Draft | None = None

    @property
    def is_current(self) -> bool:
        return self.draft is not None and self.served is self.draft


def admit(candidates: Sequence[Candidate], report: Report) -> Steps[None]:
    """Decide who is served as what; candidates come the oldest first."""
    groups: Groups = {}
    for one in candidates:
        if one.draft is not None and _fits(one.draft, groups, report):
            _take(one, one.draft, groups)
        elif one.last is not None and _fits(one.last, groups, Report()):
            _take(one, one.last, groups)
        yield
    weightless = [match for match, group in groups.items() if _is_weightless(group)]
    for match in weightless:
        _revive(match, candidates, groups, report)


def _take(one: Candidate, draft: Draft, groups: Groups) -> None:
    one.served = draft
    groups.setdefault(draft.match, []).append(draft)


def _fits(draft: Draft, groups: Groups, report: Report) -> bool:
    """Whether it gets along with the older ones of its group; says so if not."""
    group = groups.get(draft.match, [])
    if misfits(draft, group, report):
        return False
    if draft.is_shadow:
        return True
    mains = _mains(group)
    fits = True
    first = next((other for other in mains if other.balancer is not None), None)
    if first is not None and draft.balancer not in (None, first.balancer):
        refuse_balancer(draft, first, report)
        fits = False
    total = total_weight([*mains, draft])
    if draft.weight is not None and total > 100:
        refuse_weights([*mains, draft], draft, total, report)
        fits = False
    return fits


def _mains(group: Iterable[Draft]) -> list[Draft]:
    return [draft for draft in group if not draft.is_shadow]


def _is_weightless(group: Iterable[Draft]) -> bool:
    """Whether it has members and none of them gets anything."""
    weights = [draft.weight for draft in _mains(group)]
    return bool(weights) and None not in weights and not any(weights)


def _revive(
    match: RouteMatch, candidates: Sequence[Candidate], groups: Groups, report: Report
) -> None:
    """Nobody of the group has a weight: each is as it last was, or none is served."""
    group = groups.pop(match)
    members = [one for one in candidates if any(one.served is draft for draft in group)]
    for one in members:
        if one.is_current and one.draft is not None and not one.draft.is_shadow:
            refuse_weights(_mains(group), one.draft, 0, report)
    revived: Groups = {}
    for one in members:
        one.served = None
        last = one.last
        if last is not None and last.match == match and _fits(last, revived, Report()):
            _take(one, last, revived)
    if _mains(revived.get(match, ())) and not _is_weightless(revived[match]):
        return
    for one in members:
        one.served = None
