"""Calls through the house that end well."""

from __future__ import annotations

from support.peers import Call
from support.plan import GRPC_END, GRPC_OK

ANSWER = [*GRPC_OK, *GRPC_END]


async def answered(call: Call, got: Call) -> None:
    await all_answered([call], [got])


async def all_answered(calls: list[Call], arrived: list[Call]) -> None:
    """Whichever of them is whose: tasks that become ready together run in any order."""
    for got in arrived:
        got.respond(ANSWER, end=True)
    for call in calls:
        assert (await call.end()).grpc_status == b"0"
