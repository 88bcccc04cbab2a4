"""Mappings with one match that are no equals: shadows and redirects, by Emissary's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from stickyproxy.config.mappings.draft import Draft
from stickyproxy.config.text.decode import Report
from stickyproxy.model import LoadBalancer


def misfits(draft: Draft, others: Sequence[Draft], report: Report) -> bool:
    """Whether it cannot stand beside these, which were there first; says so then.

    A match has one shadow at most, and one redirect or backends, not both.
    """
    for other in others:
        place = f"{other.entry.name} ({other.entry.origin}), which has the same match"
        if draft.is_shadow and other.is_shadow:
            draft.entry.problem(report, f"is already that of {place}; keep one", "shadow")
            return True
        if draft.is_shadow or other.is_shadow:
            continue
        if draft.target.redirect is not None:
            message = f"cannot stand beside {place}; keep one"
            draft.entry.problem(report, message, "host_redirect")
            return True
        if other.target.redirect is not None:
            message = f"cannot stand beside the redirect {place}; keep one"
            draft.entry.problem(report, message, "service")
            return True
    return False


def split(
    group: Sequence[Draft], default: LoadBalancer, report: Report
) -> tuple[list[Draft], Draft | None]:
    """Who answers, and who gets copies of what they are asked."""
    for index, draft in enumerate(group):
        misfits(draft, group[:index], report)
    mains = [draft for draft in group if not draft.is_shadow]
    shadow = next((draft for draft in group if draft.is_shadow), None)
    if shadow is None or shadow.cluster is None:
        return mains, None
    if not mains or mains[0].target.redirect is not None:
        message = "mirrors nothing: no other Mapping with the same match has a backend"
        shadow.entry.warn(report, message, "shadow")
        return mains, None
    balanced = replace(shadow.cluster, load_balancer=shadow.balancer or default)
    return mains, replace(shadow, cluster=balanced)
