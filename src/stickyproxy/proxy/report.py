"""What an exchange leaves behind: its counts and its one line in the access log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from stickyproxy.accesslog import Record, trace_id
from stickyproxy.counters import ClusterStats
from stickyproxy.errors import ErrorKind, GrpcStatus, ProxyError, Side
from stickyproxy.events import RequestRejected
from stickyproxy.metrics import NO_ROUTE, Metrics
from stickyproxy.model import Cluster, Connection, Headers, Section
from stickyproxy.policy.grpc import status_of, status_of_reset
from stickyproxy.proxy.exchange import Exchange


class Reporter:
    """Called once for each request head that a codec delivered, refused ones included.

    `write` takes the Record of a line; None switches the access log off.
    """

    def __init__(self, metrics: Metrics, write: Callable[[Record], None] | None) -> None:
        self._metrics = metrics
        self._write = write

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over; `_finish` calls this, so it must not raise."""
        seconds = exchange.context.now() - exchange.started
        grpc_status = exchange.response.grpc_status  # None for all that is not gRPC
        if grpc_status is None:
            grpc_status = grpc_status_of(exchange)
        session = exchange.session
        self._count(exchange, seconds, grpc_status, session)
        if self._write is not None:
            self._write(_record(exchange, seconds, grpc_status, session))
            self._metrics.process.access_log_lines_total += 1

    def _count(
        self, exchange: Exchange, seconds: float, grpc_status: int | None, session: tuple[str, str]
    ) -> None:
        metrics = self._metrics
        metrics.process.downstream_streams -= 1
        method = exchange.stats
        if method is None:  # it ended before a route was found
            method = metrics.method(NO_ROUTE, b"", exchange.grpc)
            method.started()
        response, sent = exchange.response, exchange.upload.messages
        first, got = response.first_byte, response.messages
        place = method.finished(
            grpc_status,
            response.status,
            seconds,
            0 if sent is None else sent.count,
            0 if got is None else got.count,
            None if first is None else first - exchange.started,
        )
        if session[0]:
            method.route.looked_up(session)
        if exchange.cluster is not None:
            self._count_upstream(exchange, exchange.cluster, place)
        if exchange.tunnel is not None and exchange.tunnel.accepted.is_set():
            metrics.websocket_closed(exchange.tunnel.close_code)

    def _count_upstream(self, exchange: Exchange, to: Cluster, place: int) -> None:
        name, metrics = to.spec.name, self._metrics
        cluster = metrics.clusters.get(name) or metrics.cluster(name)
        if not exchange.at_home:
            self._count_repin(exchange, to)
        attempts, endpoint = exchange.attempts, exchange.endpoint
        cluster.upstream_rq_total += attempts
        if exchange.response.first_byte is not None:
            cluster.responded(exchange.response.status)
            if endpoint is not None:
                times = metrics.first_bytes.get((name, endpoint.key))
                if times is None:
                    times = metrics.answers_of(name, endpoint.key)
                times.counts[place] += 1
        if attempts > 1:
            _count_retries(exchange, cluster, attempts - 1)
        if exchange.error is not None:
            self._count_error(cluster, exchange.error)

    def _count_error(self, cluster: ClusterStats, error: ProxyError) -> None:
        if error.kind is ErrorKind.TIMEOUT:
            cluster.upstream_rq_timeout += 1
        elif error.kind is ErrorKind.NO_HEALTHY_ENDPOINT:
            cluster.upstream_cx_none_healthy += 1
        elif error.side is Side.UPSTREAM and error.relay:
            cluster.upstream_rq_rx_reset += 1
            self._metrics.rst_stream("upstream_rx", error.code)
        elif error.side is Side.DOWNSTREAM and error.relay:
            cluster.upstream_rq_tx_reset += 1
            self._metrics.rst_stream("downstream_rx", error.code)

    def _count_repin(self, exchange: Exchange, cluster: Cluster) -> None:
        endpoint = exchange.endpoint
        if endpoint is None or exchange.upstream is None:
            return
        if cluster.table is not None and exchange.key.hash is not None:
            home = cluster.endpoints[cluster.table.lookup(exchange.key.hash)].key
            if home != endpoint.key:
                self._metrics.repinned(_why_not(cluster, home))

    def rejected(self, event: RequestRejected, connection: Connection, protocol: str) -> None:
        """A request that never became a stream still gets its line."""
        self._metrics.process.downstream_streams_total += 1
        self._metrics.process.downstream_streams_refused_total += 1
        if self._write is None:
            return
        record = Record(time.time(), protocol, connection.peer, connection.tls_version)
        _describe(record, dict(event.headers))
        record.http_status = event.status
        record.response_flags = "UO" if event.status == ErrorKind.OVERLOAD.http else "DPE"
        self._write(record)
        self._metrics.process.access_log_lines_total += 1


def _count_retries(exchange: Exchange, cluster: ClusterStats, extra: int) -> None:
    """Hedges are counted apart; what was relayed for want of another retry is no success."""
    tries = exchange.tries
    retries = extra - tries.hedges if tries is not None else extra
    if retries > 0:
        cluster.upstream_rq_retry += retries
        answered = exchange.response.first_byte is not None
        cluster.upstream_rq_retry_success += answered and not (tries is not None and tries.flag)


def grpc_status_of(exchange: Exchange) -> int | None:
    """What the client was told: by trailers, by a trailers-only head, or by our reset."""
    if not exchange.grpc:
        return None
    response = exchange.response
    status = response.grpc_status
    if status is None:
        status = status_of(response.trailers)
    if status is None:
        status = status_of(response.headers)
    if status is None and exchange.error is not None:
        return int(_told_by_reset(exchange.error, answered=bool(exchange.response.status)))
    if status is None and exchange.response.status:
        return int(GrpcStatus.UNKNOWN)
    return status


def _told_by_reset(error: ProxyError, *, answered: bool) -> GrpcStatus:
    """A client that left, or whose deadline passed, has made up its mind by itself."""
    if error.side is Side.UPSTREAM and error.relay:
        return status_of_reset(error.code)
    if not answered or error.side is Side.DOWNSTREAM or error.kind is ErrorKind.TIMEOUT:
        return error.kind.grpc
    return GrpcStatus.INTERNAL  # an answer that broke off amid a message


def _record(
    exchange: Exchange, seconds: float, grpc_status: int | None, session: tuple[str, str]
) -> Record:
    connection, response, upload = exchange.connection, exchange.response, exchange.upload
    protocol = exchange.downstream.link.codec.protocol
    record = Record(exchange.started_wall, protocol, connection.peer, connection.tls_version)
    _describe(record, exchange.head.fields)
    record.request_id = record.request_id or exchange.request_id
    record.duration = seconds
    if response.first_byte is not None:
        record.ttfb = response.first_byte - exchange.started
    if exchange.route is not None:
        record.route = exchange.route.name
    if exchange.cluster is not None:
        record.cluster = exchange.cluster.spec.name
    if exchange.endpoint is not None:
        record.upstream_host = exchange.endpoint.key
        record.pod = exchange.endpoint.pod or ""
    if session[0]:
        record.session_source, record.session_result = session
        record.session_hash = exchange.key.hash
    record.attempts = exchange.attempts
    record.grpc_status = grpc_status
    record.http_status = response.status
    if exchange.grpc or exchange.error is not None or exchange.tries is not None:
        _describe_end(record, exchange)
    record.bytes_in = upload.received
    record.bytes_out = response.bytes_out
    if upload.messages is not None:
        record.messages_in = upload.messages.count
    if response.messages is not None:
        record.messages_out = response.messages.count
    if exchange.tunnel is not None and exchange.tunnel.accepted.is_set():
        record.upgrade = "websocket"
        record.close_code = exchange.tunnel.close_code
    return record


def _why_not(cluster: Cluster, home: str) -> str:
    """A word for why a session's own endpoint did not get its request."""
    if home in cluster.removed:
        return "removed"
    return "not_ready" if home in cluster.inadmissible else "unreachable"


def _describe(record: Record, fields: Mapping[bytes, bytes]) -> None:
    found = fields.get
    record.method = found(b":method", b"")
    record.authority = found(b":authority", b"")
    record.path = found(b":path", b"")
    record.user_agent = found(b"user-agent", b"")
    record.xff = found(b"x-forwarded-for", b"")
    record.request_id = found(b"x-request-id", b"")
    if b"traceparent" in fields:
        record.trace_id = trace_id(fields[b"traceparent"])


def _message_of(headers: Headers) -> bytes:
    if type(headers) is Section:
        return headers.fields.get(b"grpc-message", b"")
    for name, value in headers:
        if name == b"grpc-message":
            return value
    return b""


def _describe_end(record: Record, exchange: Exchange) -> None:
    record.grpc_message = _message_of(exchange.response.trailers or exchange.response.headers)
    error = exchange.error
    if error is not None:
        record.response_flags = error.kind.flag
        if error.kind is ErrorKind.CLIENT_GONE and not exchange.response.status:
            record.http_status = error.kind.http
    tries = exchange.tries
    if tries is not None and tries.flag:
        flags = record.response_flags
        record.response_flags = f"{flags},{tries.flag}" if flags else tries.flag
