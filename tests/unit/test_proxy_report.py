"""What a call leaves in log and counters, where its end is no answer in plain words."""

from __future__ import annotations

import pytest

from stickyproxy.accesslog import Record
from stickyproxy.errors import GrpcStatus, H2Code
from stickyproxy.proxy.report import Reporter
from support.clock import on_jumping_clock
from support.house import House, open_house
from support.plan import CLUSTER, GRPC, GRPC_END, GRPC_OK
from support.stages import (
    Stage,
    amid_response,
    amid_response_message,
    head_sent,
    waiting_for_connect,
)


async def record_of(house: House) -> Record:
    """The one line of the one call."""
    [exchange] = await house.reports()
    records: list[Record] = []
    Reporter(house.metrics, records.append).ended(exchange)
    [record] = records
    return record


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (H2Code.REFUSED_STREAM, GrpcStatus.UNAVAILABLE),
        (H2Code.CANCEL, GrpcStatus.CANCELLED),
        (H2Code.ENHANCE_YOUR_CALM, GrpcStatus.RESOURCE_EXHAUSTED),
        (H2Code.INADEQUATE_SECURITY, GrpcStatus.PERMISSION_DENIED),
        (H2Code.PROTOCOL_ERROR, GrpcStatus.INTERNAL),
        (0xBAD, GrpcStatus.INTERNAL),
    ],
)
@pytest.mark.parametrize("stage", [head_sent, amid_response])
@on_jumping_clock
async def test_a_reset_that_was_relayed_is_logged_as_clients_read_it(
    stage: Stage, code: int, status: GrpcStatus
) -> None:
    async with open_house() as house:
        scene = await stage(house)
        for number in range(1, 4):  # REFUSED_STREAM is tried again before an answer
            got = await house.backend().request(number)
            got.rst(code)
            if code != H2Code.REFUSED_STREAM or stage is not head_sent:
                break
        assert (await scene.call.end()).reset == code

        record = await record_of(house)

    assert (record.grpc_status, record.response_flags) == (status, "UR")


@on_jumping_clock
async def test_an_answer_that_broke_off_amid_a_message_is_logged_as_internal() -> None:
    async with open_house() as house:
        scene = await amid_response_message(house)
        scene.at_backend.peer.close()
        assert (await scene.call.end()).reset == H2Code.INTERNAL_ERROR

        record = await record_of(house)

    assert (record.grpc_status, record.response_flags) == (GrpcStatus.INTERNAL, "UC")


@on_jumping_clock
async def test_what_is_under_way_is_counted_while_it_is() -> None:
    async with open_house() as house:
        scene = await head_sent(house)
        house.metrics.refresh()
        cluster = house.metrics.cluster(CLUSTER)
        endpoint = house.metrics.endpoint(CLUSTER, house.backend().key)
        assert (cluster.upstream_rq_active, cluster.upstream_cx_active) == (1, 1)
        assert (endpoint.rq_active, endpoint.cx_active) == (1, 1)

        scene.at_backend.respond(GRPC_OK)
        scene.at_backend.trailer(GRPC_END, end=True)
        scene.call.rst(H2Code.NO_ERROR)
        await house.reports()
        scene.at_backend.peer.close()
        await house.until(lambda: not endpoint.cx_active)
        house.metrics.refresh()

        assert (cluster.upstream_rq_active, cluster.upstream_cx_active) == (0, 0)


@on_jumping_clock
async def test_who_waits_for_a_connection_is_counted_and_so_is_how_that_ends() -> None:
    async with open_house() as house:
        scene = await waiting_for_connect(house)
        cluster = house.metrics.cluster(CLUSTER)
        scene.client.request(GRPC, end=True)
        await house.until(lambda: cluster.upstream_rq_pending_active == 2)
        scene.call.rst(H2Code.CANCEL)
        await house.reports(1)
        assert (cluster.upstream_rq_pending_active, cluster.upstream_rq_cancelled) == (1, 1)

        await house.reports(2)  # nobody answers within the connect timeout

    assert (cluster.upstream_rq_pending_active, cluster.upstream_rq_pending_total) == (0, 2)
    assert cluster.upstream_rq_pending_failure_eject == 1
