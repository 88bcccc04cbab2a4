"""Flags, environment and the StickyProxy document: precedence, values, the backends' route."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stickyproxy.config.load import Settings, load
from stickyproxy.config.process.settings import IMPLICIT_PRECEDENCE, ProcessSettings
from stickyproxy.config.text.addresses import parse_bind, show_bind
from stickyproxy.errors import ConfigError
from stickyproxy.model import (
    Bind,
    HashPolicy,
    LoadBalancer,
    RouteMatch,
    UpstreamProtocol,
    UpstreamTls,
)
from support.written import Written, cluster_of, mapping, route

OURS = "kind: StickyProxy\n"


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def flagged(**flags: str | list[str]) -> Settings:
    given = {
        name.replace("_", "-"): [value] if isinstance(value, str) else value
        for name, value in flags.items()
    }
    return load([], given, {})


def refused(**flags: str | list[str]) -> str:
    """The only problem."""
    with pytest.raises(ConfigError) as caught:
        flagged(**flags)
    (problem,) = caught.value.problems
    return problem


# --- precedence -----------------------------------------------------------------------------------


def test_flag_over_environment_over_document_over_default(written: Written) -> None:
    text = OURS + "drain-delay: 1\nlog-format: text\ncodec: reference\n"
    environ = {"STICKYPROXY_DRAIN_DELAY": "2", "STICKYPROXY_LOG_FORMAT": "json"}

    settings = written.load(text, {"drain-delay": ["3"]}, environ)

    assert (settings.process.drain_delay, settings.process.log_format) == (3.0, "json")
    origins = dict(settings.origins)
    assert origins["drain-delay"] == "--drain-delay"
    assert origins["log-format"] == "STICKYPROXY_LOG_FORMAT"
    assert origins["codec"].endswith("config.yaml:4: codec")
    assert origins["workers"] == "default"


def test_a_higher_list_replaces_the_whole_lower_one(written: Written) -> None:
    text = OURS + "bind: [':1', ':2']\n"

    only_document = written.load(text)
    with_variable = written.load(text, {}, {"STICKYPROXY_BIND": ":3, :4"})

    assert [bind.port for bind in only_document.process.binds] == [1, 2]
    assert [bind.port for bind in with_variable.process.binds] == [3, 4]


def test_defaults_are_those_of_the_decisions() -> None:
    settings = flagged(backend="a:1")

    assert settings.process == ProcessSettings()
    assert settings.process.binds == (Bind("tcp", host="0.0.0.0", port=8080),)
    assert settings.process.admin == Bind("tcp", host="127.0.0.1", port=9901)
    assert (settings.process.drain_delay, settings.process.drain_timeout) == (5.0, 25.0)


def test_services_in_the_environment_are_split_where_a_name_begins(written: Written) -> None:
    text = mapping(service="a") + mapping(name="n", prefix="/n/", service="b")

    settings = written.load(text, {}, {"STICKYPROXY_SERVICE": "a=h:1,h:2, b=i:3"})

    assert cluster_of(settings, "m").targets == (("h", 1), ("h", 2))
    assert cluster_of(settings, "n").targets == (("i", 3),)


def test_unknown_variables_warn_and_those_of_kubernetes_do_not() -> None:
    environ = {
        "STICKYPROXY_BNID": ":1",
        "STICKYPROXY_SERVICE_HOST": "10.0.0.1",
        "STICKYPROXY_SERVICE_PORT_HTTP": "80",
        "STICKYPROXY_PORT": "tcp://10.0.0.1:80",
        "STICKYPROXY_PORT_80_TCP_ADDR": "10.0.0.1",
        "STICKYPROXY_ADMIN_SERVICE_HOST": "10.0.0.1",
        "STICKYPROXY_ADMIN_TOKEN": "secret",
        "STICKYPROXY_CONFIG": "x.yaml",
    }

    settings = load([], {"backend": ["a:1"]}, environ)

    assert settings.warnings == ("STICKYPROXY_BNID: is unknown and has no effect",)


# --- the document ---------------------------------------------------------------------------------


def test_variables_stand_in_our_document_only(written: Written) -> None:
    text = OURS + 'bind: "${HOST:-127.0.0.1}:${PORT}"\ndrain-delay: ${DELAY}\n'
    text += mapping(service="${HOST}x")

    (problem,) = written.refused(text, {}, {"PORT": "81", "DELAY": "7"})
    assert "config.yaml:9: service: `${HOST}x` is no host" in problem

    settings = written.load(text.replace("${HOST}x", "x"), {}, {"PORT": "81", "DELAY": "7"})
    assert settings.process.binds == (Bind("tcp", host="127.0.0.1", port=81),)
    assert settings.process.drain_delay == 7.0


def test_a_variable_that_is_not_set_is_a_problem(written: Written) -> None:
    (problem,) = written.refused(OURS + "admin: ${NOWHERE}:1\nworkers: 1\n")

    assert problem == "config.yaml:2: ${NOWHERE} is not set; set it, or write ${NOWHERE:-default}"


def test_a_dollar_sign_is_doubled(written: Written) -> None:
    settings = written.load(OURS + "bind: 'unix:/run/$${x}'\n")

    assert settings.process.binds == (Bind("unix", path="/run/${x}"),)


def test_keys_are_written_as_the_flags_or_with_underscores(written: Written) -> None:
    settings = written.load(OURS + "drain-delay: 1\ndrain_timeout: 2.5\naccess_log: off\n")

    assert (settings.process.drain_delay, settings.process.drain_timeout) == (1.0, 2.5)
    assert not settings.process.access_log


def test_complaints_about_our_document_name_file_and_line(written: Written) -> None:
    text = (
        OURS + "workers: lots\nadmin: nowhere\nbakcend: x\nbind: [a:1, b]\nmax-header-count: many\n"
    )

    assert written.refused(text) == [
        "config.yaml:6: max-header-count: must be a whole number, not `many`",
        "config.yaml:5: bind: `b` has no port; right would be b:8080",
        "config.yaml:3: admin: `nowhere` has no port; right would be nowhere:9901",
        "config.yaml:2: workers: `lots` is no whole number from 1 to 256",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "tls-cert: [x]\ntls-key: k.pem\nbind: https://:1\n",
        "tls-cert: ${NOWHERE}\ntls-key: k.pem\n",
        "backend: {a: 1}\nsticky: source-ip\npolicy: maglev\n",
        "drain-delay: [5]\ndrain-timeout: 3\n",
        "max-connection-age: [5]\nmax-connection-age-grace: 3\n",
        "kubernetes: {a: 1}\nkubeconfig: k.conf\nkube-context: x\n",
    ],
)
def test_what_a_refused_option_leaves_alone_is_not_complained_about(
    written: Written, text: str
) -> None:
    (problem,) = written.refused(OURS + text + mapping())

    assert problem.startswith("config.yaml:2: ")


def test_seconds_are_written_in_our_document_as_in_a_flag(written: Written) -> None:
    settings = written.load(OURS + "drain-delay: 1s\ndrain-timeout: '7'\ndns-refresh: 2.5s\n")

    process = settings.process
    assert (process.drain_delay, process.drain_timeout, process.dns_refresh) == (1.0, 7.0, 2.5)
    (problem,) = written.refused(OURS + "drain-delay: [5]\n")
    assert problem == "config.yaml:2: drain-delay: must be a number or text, not a list"
    (problem,) = written.refused(OURS + "drain-delay: soon\n")
    assert problem == (
        "config.yaml:2: drain-delay: `soon` is no number of seconds up to a day; right would be 5"
    )


def test_unknown_keys_of_our_document_warn(written: Written) -> None:
    assert written.warnings(OURS + "bakcend: x\nbackend: [a:1]\n") == [
        "config.yaml:2: bakcend: is unknown and has no effect; did you mean backend?"
    ]


def test_our_document_may_be_a_resource(written: Written) -> None:
    text = "apiVersion: stickyproxy.dev/v1\nkind: StickyProxy\nmetadata: {name: p}\n"

    settings = written.load(text + "spec:\n  bind: ':1'\n  backend: a:1\n")

    assert [bind.port for bind in settings.process.binds] == [1]
    assert settings.warnings == ()


def test_two_of_our_documents_are_refused(written: Written) -> None:
    (problem,) = written.refused(OURS + "workers: 1\n---\n" + OURS)

    assert problem.startswith("config.yaml:4: StickyProxy: is given twice (first in ")


# --- binds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        (":8080", Bind("tcp", host="0.0.0.0", port=8080)),
        ("8080", Bind("tcp", host="0.0.0.0", port=8080)),
        (":0", Bind("tcp", host="0.0.0.0", port=0)),
        ("*:80", Bind("tcp", host="0.0.0.0", port=80)),
        ("127.0.0.1:0", Bind("tcp", host="127.0.0.1", port=0)),
        ("localhost:8080", Bind("tcp", host="localhost", port=8080)),
        ("[::1]:8080", Bind("tcp", host="::1", port=8080)),
        ("[::]:0", Bind("tcp", host="::", port=0)),
        ("h2c://:8080", Bind("tcp", "h2c", host="0.0.0.0", port=8080)),
        ("https://0.0.0.0:443", Bind("tcp", "https", host="0.0.0.0", port=443)),
        ("unix:/run/p.sock", Bind("unix", path="/run/p.sock")),
        ("unix:p.sock", Bind("unix", path="p.sock")),
        ("fd://3", Bind("fd", fd=3)),
    ],
)
def test_each_form_of_a_bind(text: str, bind: Bind) -> None:
    assert parse_bind(text) == bind
    assert parse_bind(show_bind(bind)) == bind


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "host:", "::1", "[::1]", "[x]:1", "a:b:c", ":65536", "70000", "-1", "a b:1",
     "http://:80", "ftp://a:1", "unix:", "fd://x", "fd://", "256.1.1.1:80", "https://a"],
)  # fmt: skip
def test_other_text_is_no_bind(text: str) -> None:
    with pytest.raises(ValueError, match="right would be"):
        parse_bind(text)


def test_an_address_given_twice_is_refused_before_the_kernel_does() -> None:
    assert refused(backend="a:1", bind="127.0.0.1:9901") == (
        "--admin: 127.0.0.1:9901 is taken by bind; give another"
    )
    any_port = flagged(backend="a:1", bind=["127.0.0.1:0", "127.0.0.1:0"], admin="127.0.0.1:0")
    assert len(any_port.process.binds) == 2


def test_the_admin_port_can_be_off() -> None:
    assert flagged(backend="a:1", admin="off").process.admin is None


def test_a_key_pair_turns_binds_without_a_scheme_into_https(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text("")
    key.write_text("")
    binds = [":1", "h2c://:2", "unix:/s", "fd://3"]

    process = flagged(backend="a:1", bind=binds, tls_cert=str(cert), tls_key=str(key)).process

    assert [bind.protocol for bind in process.binds] == ["https", "h2c", "auto", "https"]
    assert (process.tls_cert, process.tls_key) == (cert, key)


def test_a_key_pair_comes_whole_and_readable(tmp_path: Path) -> None:
    there = tmp_path / "a.pem"
    there.write_text("")

    assert refused(tls_cert=str(there)) == "--tls-cert: needs --tls-key FILE beside it"
    assert refused(tls_key=str(there)) == "--tls-key: needs --tls-cert FILE beside it"
    assert refused(tls_cert=str(there), tls_key=f"{tmp_path}/b.pem") == (
        f"--tls-key: {tmp_path}/b.pem cannot be read: No such file or directory"
    )
    assert refused(bind="https://:443") == (
        "--bind: https:// needs --tls-cert FILE and --tls-key FILE"
    )


# --- other values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("workers", "many", "`many` is no whole number from 1 to 256"),
        ("workers", "257", "`257` is no whole number from 1 to 256"),
        ("workers", "0", "`0` is no whole number from 1 to 256"),
        ("codec", "fastest", "`fastest` is not known; right would be fast or reference"),
        ("log-format", "xml", "`xml` is not known; right would be json or text"),
        ("access-log", "maybe", "`maybe` is neither on nor off"),
        ("drain-delay", "soon", "`soon` is no number of seconds up to a day; right would be 5"),
        ("drain-delay", "-1", "`-1` is no number of seconds up to a day; right would be 5"),
        ("drain-delay", "nan", "`nan` is no number of seconds up to a day; right would be 5"),
        ("max-connection-age", "old", "`old` is no number of seconds up to a day; right would be 600"),
        ("backend-ca", "/dev/zero", "/dev/zero cannot be read: it is a device, not a file"),
        ("max-connection-age-grace", "9", "is the time after --max-connection-age; add that, right"),
        ("tls-handshake-timeout", "-0.1", "`-0.1` is no number of seconds up to a day"),
        ("tls-handshake-timeout", "", "`` is no number of seconds up to a day"),
        ("first-byte-timeout", "inf", "`inf` is no number of seconds up to a day"),
        ("first-byte-timeout", "1m", "`1m` is no number of seconds up to a day"),
        ("proxy-header-timeout", "86401", "`86401` is no number of seconds up to a day"),
        ("send-timeout", "5 s s", "`5 s s` is no number of seconds up to a day"),
        ("max-unsent-output", "65536", "`65536` is no whole number from 262144 to 1073741824"),
        ("max-unsent-output", "256Ki", "`256Ki` is no whole number from 262144 to 1073741824"),
        ("max-unsent-output", "999999999999", "`999999999999` is no whole number from 262144 to 1073741824"),
        ("work-budget", "0.5", "`0.5` is no whole number from 1 to 60000"),
        ("work-budget", "\u0661", "`\u0661` is no whole number from 1 to 60000"),
        ("work-budget", "60001", "`60001` is no whole number from 1 to 60000"),
        ("work-refill", "off", "`off` is no whole number from 0 to 1000"),
        ("preserve-external-request-id", "maybe", "`maybe` is neither on nor off"),
        ("dns-refresh", "0", "`0` would ask DNS without pause; right would be 5"),
        ("max-header-count", "7", "`7` is no whole number from 8 to 100000"),
        ("backend-ca", "/none", "/none cannot be read: No such file or directory"),
        ("admin", "https://a:1", "`https://a:1` must be HOST:PORT or unix:PATH; right would be 12"),
        ("health", "fd://3", "`fd://3` must be HOST:PORT or unix:PATH"),
    ],
)  # fmt: skip
def test_wrong_values_of_options_are_refused(name: str, value: str, said: str) -> None:
    assert refused(**{"backend": "a:1", name: value}).startswith(f"--{name}: {said}")


@pytest.mark.parametrize(
    ("wrong", "others"),
    [
        ("drain_delay", {}),
        ("drain_delay", {"drain_timeout": "3"}),
        ("drain_delay", {"drain_timeout": "0"}),
        ("drain_timeout", {}),
        ("drain_timeout", {"drain_delay": "30"}),
        ("drain_timeout", {"drain_delay": "86395"}),
        ("max_connection_age", {}),
        ("max_connection_age_grace", {"max_connection_age": "600"}),
        ("dns_refresh", {}),
        ("request_headers_timeout", {}),
        ("request_body_timeout", {}),
    ],
)
def test_seconds_that_are_suggested_are_accepted(wrong: str, others: dict[str, str]) -> None:
    problem = refused(backend="a:1", **{wrong: "soon"}, **others)

    suggested = problem.partition("right would be ")[2]
    settings = flagged(backend="a:1", **{wrong: suggested}, **others)
    assert getattr(settings.process, wrong) == float(suggested)


@pytest.mark.parametrize("bad", ["-1", "nowhere", "65536", "http://", "[::1", "a:99999", "unix:"])
@pytest.mark.parametrize("name", ["bind", "admin", "health"])
def test_addresses_that_are_suggested_are_accepted_beside_the_others(name: str, bad: str) -> None:
    """And an admin port is not suggested to be everybody's."""
    suggested = refused(backend="a:1", **{name: bad}).partition("right would be ")[2]

    process = flagged(backend="a:1", **{name: suggested}).process
    assert process.binds if name == "bind" else getattr(process, name) is not None
    assert name != "admin" or not suggested.startswith(("0.0.0.0", ":"))


@pytest.mark.parametrize(
    "given",
    [
        {"drain_delay": "25"},
        {"drain_delay": "86395"},
        {"drain_delay": "86400"},
        {"drain_timeout": "3"},
        {"drain_timeout": "0"},
    ],
)
def test_a_pair_of_drain_times_that_is_suggested_is_accepted(given: dict[str, str]) -> None:
    problem = refused(backend="a:1", **given)

    name, value = re.findall(r"right would be --([a-z-]+) (\S+)$", problem)[0]
    field = name.replace("-", "_")
    assert getattr(flagged(backend="a:1", **{**given, field: value}).process, field) == float(value)


def test_the_drain_delay_is_part_of_the_timeout() -> None:
    assert refused(backend="a:1", drain_delay="30") == (
        "--drain-delay: the delay (30 s) is part of the timeout (25 s) and must be less; right "
        "would be --drain-timeout 50"
    )
    assert refused(backend="a:1", drain_timeout="5s").startswith("--drain-timeout: the delay (5 s)")
    assert flagged(backend="a:1", drain_delay="0", drain_timeout="0").process.drain_timeout == 0


@pytest.mark.parametrize(
    ("said", "age"), [("600", 600.0), ("7.5s", 7.5), ("0", 0.0), ("off", 0.0), ("Off", 0.0)]
)
def test_a_connections_age_is_in_seconds_or_off(said: str, age: float, written: Written) -> None:
    process = flagged(backend="a:1", max_connection_age=said, max_connection_age_grace=said).process
    assert (process.max_connection_age, process.max_connection_age_grace) == (age, age)
    assert written.load(f"{OURS}max-connection-age: {said}\n").process.max_connection_age == age


LIMITS = (
    "proxy_header_timeout",
    "tls_handshake_timeout",
    "first_byte_timeout",
    "send_timeout",
    "max_unsent_output",
    "work_budget",
)


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_of_a_connection_can_be_set_and_taken_away(written: Written, name: str) -> None:
    option = name.replace("_", "-")
    for said, meant in (("off", 0), ("300000" if "unsent" in name else "30", None)):
        wanted = float(said) if meant is None else meant
        assert getattr(flagged(backend="a:1", **{name: said}).process, name) == wanted
        process = written.load(f"{OURS}{option}: {said}\n").process
        assert getattr(process, name) == wanted


def test_a_refill_of_no_budget_is_refused() -> None:
    problem = refused(backend="a:1", work_budget="off", work_refill="10")

    assert problem == "--work-refill: fills --work-budget again, which is off; right would be 100"


def test_connections_grow_as_old_as_they_like_by_default() -> None:
    process = flagged(backend="a:1").process
    assert (process.max_connection_age, process.max_connection_age_grace) == (0.0, 0.0)


# --- backends -------------------------------------------------------------------------------------


def test_backends_alone_are_enough() -> None:
    settings = flagged(backend=["127.0.0.1:50051", "127.0.0.1:50052"])

    (found,) = settings.routes
    (spec,) = settings.clusters
    (target,) = found.targets
    assert found.match == RouteMatch("/", precedence=IMPLICIT_PRECEDENCE)
    assert found.name == target.cluster == spec.name == "backends"
    assert spec.protocol is UpstreamProtocol.H2C
    assert spec.targets == (("127.0.0.1", 50051), ("127.0.0.1", 50052))
    assert spec.load_balancer == LoadBalancer("round_robin")
    assert (target.timeout, target.rewrite) == (None, None)


@pytest.mark.parametrize(
    ("url", "protocol", "port"),
    [
        ("a", UpstreamProtocol.H2C, 80),
        ("h2c://a", UpstreamProtocol.H2C, 80),
        ("grpc://a", UpstreamProtocol.H2C, 80),
        ("h2://a", UpstreamProtocol.H2, 443),
        ("grpcs://a", UpstreamProtocol.H2, 443),
        ("http://a/", UpstreamProtocol.HTTP, 80),
        ("HTTPS://a:8443", UpstreamProtocol.HTTPS, 8443),
    ],
)
def test_the_scheme_of_a_backend_says_what_is_spoken(
    url: str, protocol: UpstreamProtocol, port: int
) -> None:
    (spec,) = flagged(backend=url).clusters

    assert (spec.protocol, spec.targets) == (protocol, (("a", port),))
    assert (spec.tls is not None) is protocol.tls


def test_schemes_that_mean_the_same_may_mix() -> None:
    (spec,) = flagged(backend=["a:1", "h2c://b:1", "grpc://c:1"]).clusters

    assert spec.protocol is UpstreamProtocol.H2C


def test_backends_of_different_schemes_are_refused() -> None:
    assert refused(backend=["a:1", "http://b:1"]) == (
        "--backend: all need one scheme, these have h2c://, http://; use Mappings instead"
    )


def test_tls_of_backends_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("")

    verified = flagged(backend="https://a").clusters[0].tls
    by_file = flagged(backend="https://a", backend_ca=str(authority)).clusters[0].tls
    insecure = flagged(backend="https://a", backend_insecure="on").clusters[0].tls

    assert verified == UpstreamTls(verify=True)
    assert by_file == UpstreamTls(verify=True, ca_file=str(authority))
    assert insecure == UpstreamTls(verify=False)


def test_backends_may_be_said_to_be_idempotent() -> None:
    said = flagged(backend="a:1", idempotent="on").routes[0].targets[0]

    assert said.idempotent
    assert not flagged(backend="a:1").routes[0].targets[0].idempotent
    assert refused(idempotent="on") == (
        "--idempotent: is about backends; add --backend URL, or use idempotent: true in Mappings"
    )


@pytest.mark.parametrize(
    ("sticky", "policy", "expected"),
    [
        ("header:X-User", None, LoadBalancer("maglev", HashPolicy("header", "x-user"))),
        ("source-ip", "ring_hash", LoadBalancer("ring_hash", HashPolicy("source_ip"))),
        ("cookie:c", None, LoadBalancer("maglev", HashPolicy("cookie", "c", None))),
        ("cookie:c:60s", None, LoadBalancer("maglev", HashPolicy("cookie", "c", 60.0))),
        ("cookie:c:60", None, LoadBalancer("maglev", HashPolicy("cookie", "c", 60.0))),
        ("cookie:c:0", None, LoadBalancer("maglev", HashPolicy("cookie", "c", 0.0))),
        (None, "least_request", LoadBalancer("least_request")),
    ],
)
def test_sticky_and_policy(sticky: str | None, policy: str | None, expected: LoadBalancer) -> None:
    given = {"backend": "a:1", "sticky": sticky, "policy": policy}

    (spec,) = flagged(**{name: value for name, value in given.items() if value}).clusters

    assert spec.load_balancer == expected


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"policy": "maglev"}, "--policy: maglev needs a key; add sticky header:NAME, cookie:"),
        ({"policy": "rr"}, "--policy: `rr` is not one of round_robin, least_request, ring_hash,"),
        ({"policy": "round_robin", "sticky": "source-ip"}, "--sticky: round_robin spreads and c"),
        ({"sticky": "header"}, "--sticky: `header` is not header:NAME, cookie:NAME[:TTL] or sou"),
        ({"sticky": "header:"}, "--sticky: `header:` is not header:NAME"),
        ({"sticky": "header:a b"}, "--sticky: `header:a b` is not header:NAME"),
        ({"sticky": "source-ip:x"}, "--sticky: `source-ip:x` is not header:NAME"),
        ({"sticky": "cookie:c:soon"}, "--sticky: `soon` is no lifetime in seconds"),
        ({"backend": "a:1:2"}, "--backend: `a:1:2` has several colons"),
        ({"backend": "a/b"}, "--backend: `a/b` has more than a host and a port"),
        ({"backend": ["a:1", "a:1"]}, "--backend: the same address is given twice; keep one"),
    ],
)
def test_backends_that_make_no_sense_are_refused(
    flags: dict[str, str | list[str]], said: str
) -> None:
    given: dict[str, str | list[str]] = {"backend": "a:1"}

    assert refused(**(given | flags)).startswith(said)


def test_sticky_without_backends_is_refused() -> None:
    assert refused(sticky="source-ip") == (
        "--sticky: is about backends; add --backend URL, or use load_balancer"
    )


def test_websockets_are_let_through_to_the_backends_where_it_is_said() -> None:
    settings = flagged(backend="a:1", allow_upgrade="WebSocket")
    assert route(settings, "backends").targets[0].upgrades == ("websocket",)
    assert route(flagged(backend="a:1"), "backends").targets[0].upgrades == ()
    assert refused(allow_upgrade="websocket") == (
        "--allow-upgrade: is about backends; add --backend URL, or use allow_upgrade in Mappings"
    )
    assert "right would be" in refused(backend="a:1", allow_upgrade="h2c")


def test_grpc_web_is_translated_for_backends_that_speak_http2() -> None:
    for flags, translated in (
        ({"backend": "a:1"}, True),
        ({"backend": "h2://a:1"}, True),
        ({"backend": "http://a:1"}, False),
        ({"backend": "a:1", "grpc_web": "off"}, False),
    ):
        assert route(flagged(**flags), "backends").targets[0].grpc_web is translated


def test_pages_of_named_origins_may_call_the_backends() -> None:
    here, there = "https://a.example", "http://localhost:3000"
    target = route(flagged(backend="a:1", cors_origin=[here, there]), "backends").targets[0]
    assert target.cors is not None
    assert target.cors.origins == (here, there)
    assert target.cors.exposed_headers == "*"
    assert not target.cors.credentials
    assert route(flagged(backend="a:1"), "backends").targets[0].cors is None
    assert refused(backend="a:1", cors_origin="a.example").startswith(
        "--cors-origin: `a.example` is no origin; right would be "
    )


@pytest.mark.parametrize(
    ("origin", "sticky", "sent"),
    [
        ("https://a.example", "cookie:session:60s", True),
        ("https://a.example", "header:x-user", False),
        ("*", "cookie:session:60s", False),
    ],
)
def test_browsers_send_the_session_to_backends_of_origins_that_were_named(
    origin: str, sticky: str, sent: bool
) -> None:
    target = route(flagged(backend="a:1", cors_origin=origin, sticky=sticky), "backends").targets[0]
    assert target.cors is not None
    assert target.cors.credentials is sent


def test_backends_take_what_no_mapping_matches(written: Written) -> None:
    settings = written.load(mapping(prefix="/m/"), {"backend": ["a:1"]})

    assert {found.name for found in settings.routes} == {"m", "backends"}
    assert cluster_of(settings, "backends").targets == (("a", 1),)


def test_a_configuration_that_routes_nothing_is_said(written: Written) -> None:
    assert written.warnings(OURS + "workers: 1\n") == [
        "no Mapping and no backend: every request is answered 404 (gRPC: UNIMPLEMENTED)"
    ]


def test_sources_are_all_that_was_read(written: Written) -> None:
    path = written.file(mapping())
    authority = written.file("", "ca.pem")

    settings = load([written.folder], {"backend-ca": [str(authority)]}, {})

    assert settings.sources == (written.folder, path, authority)


# --- Kubernetes -----------------------------------------------------------------------------------


def test_kubernetes_is_off_unless_asked_for() -> None:
    process = flagged().process
    assert (process.kubernetes, process.kube_namespace, process.ambassador_id) == (
        False,
        "",
        "default",
    )
    assert process.kube_secrets
    assert flagged(kubernetes="on").process.kubernetes


def test_how_the_cluster_is_reached(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("kind: Config\n")
    process = flagged(
        kubernetes="on",
        kubeconfig=str(file),
        kube_context="kind",
        kube_namespace="prod",
        ambassador_id="inner",
        kube_secrets="off",
    ).process
    assert (process.kubeconfig, process.kube_context) == (file, "kind")
    assert (process.kube_namespace, process.ambassador_id) == ("prod", "inner")
    assert not process.kube_secrets


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"kubernetes": "maybe"}, "--kubernetes: `maybe` is neither on nor off"),
        ({"kube_context": "kind"}, "--kube-context: needs --kubernetes on beside it"),
        (
            {"kubernetes": "on", "kube_namespace": "Prod"},
            "--kube-namespace: `Prod` is no namespace; right would be prod, or all",
        ),
        (
            {"kubernetes": "on", "kubeconfig": "/nowhere/config"},
            "--kubeconfig: /nowhere/config cannot be read: No such file or directory",
        ),
    ],
    ids=str,
)
def test_wrong_options_of_kubernetes_name_what_is_right(flags: dict[str, str], said: str) -> None:
    assert refused(**flags) == said


def test_variables_of_ambassador_are_below_everything_of_ours(written: Written) -> None:
    environ = {
        "AMBASSADOR_ID": "theirs",
        "AMBASSADOR_NAMESPACE": "prod",
        "AMBASSADOR_SINGLE_NAMESPACE": "true",
        "AMBASSADOR_NO_SECRETS": "1",
        "AMBASSADOR_ENABLE_ENDPOINTS": "false",
    }
    alone = load([], {}, environ)
    process = alone.process
    assert (process.ambassador_id, process.kube_namespace) == ("theirs", "prod")
    assert (process.kube_secrets, process.enable_endpoints) == (False, False)
    assert dict(alone.origins)["ambassador-id"] == "AMBASSADOR_ID"

    ours = written.load(OURS + "ambassador-id: ours\nkube-namespace: all\n", {}, environ).process
    assert (ours.ambassador_id, ours.kube_namespace) == ("ours", "all")


def test_ambassadors_namespace_alone_restricts_nothing() -> None:
    for single in ({}, {"AMBASSADOR_SINGLE_NAMESPACE": "false"}):
        environ = {"AMBASSADOR_NAMESPACE": "prod", **single}
        assert load([], {}, environ).process.kube_namespace == ""


def test_nonsense_in_a_variable_of_ambassador_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        load([], {}, {"AMBASSADOR_ENABLE_ENDPOINTS": "maybe"})
    (problem,) = caught.value.problems
    assert problem.startswith("AMBASSADOR_ENABLE_ENDPOINTS: `maybe` is neither true nor false")
