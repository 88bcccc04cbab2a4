"""docs/configuration.md and the JSON Schema, made from the schema's own words.

`python -m stickyproxy.config.schema.reference > docs/configuration.md`; with `--schema` the JSON Schema.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct, inspect

from stickyproxy.config.schema import known
from stickyproxy.config.schema.edge import (
    HOST_IGNORED,
    LISTENER_IGNORED,
    TLS_CONTEXT_IGNORED,
    HostBindingSpec,
    HostSpec,
    InsecureSpec,
    ListenerDocument,
    SecretRefSpec,
    SelectorSpec,
    TlsContextSpec,
)
from stickyproxy.config.schema.features import (
    CheckSpec,
    CircuitBreakerSpec,
    ClientCertDetailsSpec,
    CorsSpec,
    GrpcCheckSpec,
    HeaderValueSpec,
    HealthCheckSpec,
    HttpCheckSpec,
    IpRangeSpec,
    KeepaliveSpec,
    RegexRedirectSpec,
    RetryPolicySpec,
    StatusRangeSpec,
)
from stickyproxy.config.schema.mapping import (
    CookieSpec,
    EndpointSpec,
    HeaderAddSpec,
    LoadBalancerSpec,
    MappingSpec,
    ModuleSpec,
    RegexRewriteSpec,
)
from stickyproxy.config.schema.process import LISTS, ProcessSpec

_INTRO = """\
# Configuration

<!-- Made by `python -m stickyproxy.config.schema.reference`; change the schema, not this page. -->

stickyproxy reads Ambassador's documents (`Mapping`, and the `Module` named `ambassador`) as they
are, and one document of its own for the process. A file holds any number of documents; a folder
stands for its `*.yaml` and `*.yml` files, without hidden ones and subfolders.

`stickyproxy check FILE…` reads everything, shows the routes in the order in which they are tried,
and names each problem as `file:line: path: what is wrong; what would be right`. All problems of all
files are told at once, and none of the files counts until all are good. Unknown keys, kinds that
have no place here, and known keys without effect are warnings.

## Where a value comes from

A flag wins over its environment variable, that over the `StickyProxy` document, that over the
default. The variable of `--drain-delay` is `STICKYPROXY_DRAIN_DELAY`; lists are split at commas
(`STICKYPROXY_SERVICE=a=h:1,h:2,b=h:3` are two services). `STICKYPROXY_CONFIG` names the files when
the command line names none. A list from a higher place replaces the whole list of a lower one.

## How a route is chosen

Routes are tried in this order, and the first that matches is taken:

1. higher `precedence`;
2. longer `prefix` (a regular expression counts by the length of its text);
3. `prefix_exact` before a prefix before `prefix_regex`;
4. more conditions: headers, query parameters, a method, a hostname other than `*`;
5. the more special hostname;
6. the text of prefix, hostname, method and name, so that the order of files never matters.

A prefix is a plain string prefix: `/foo/` does not match `/foo`. The path is matched without its
query, the host without its port and without regard to case. `.` and `..` in a path
(`%2e` too) are settled where they would lead to another route, so that `/public/../admin` is `/admin`;
else the service gets the path as it came. Regular expressions are RE2 and must
match the whole value. Repeated headers are matched joined by a comma; query parameters are not
percent-decoded, and the first of a name counts.

Mappings with the same match form one group. Their weights are percent; those without a weight share
the rest; more than 100 is refused. A group has one `load_balancer`. With a hash policy the session
decides the member too, so that a session stays in its part of a canary.

A redirect stands alone in its group. A shadow is beside the group: its weight is the percent of the
requests that it gets copies of, and its responses are thrown away.

`--backend` adds one route below every Mapping that takes all the rest. Reflection
(`grpc.reflection.v1`, `v1alpha`) and health (`grpc.health.v1`) follow the first gRPC Mapping of each
hostname, by name, unless a Mapping takes them; they too stand below every Mapping.

## Where a service lives

`--service NAME=…` is asked first (by `name.namespace:port`, `name:port`, `name.namespace`, then
`name`), then `endpoints` in the Mapping, else the name is asked of DNS and every address is an
endpoint. A name without a dot belongs to the Mapping's namespace, unless that is `default`.

`https://`, `h2://`, `grpcs://` and `tls` mean TLS towards the service. As in Ambassador without a CA
the certificate is then not verified, with a warning; a TLSContext with a CA verifies it, or
`--backend-ca FILE` for all services. TLS of a `--backend` is always verified unless
`--backend-insecure` is given.
"""

_EXAMPLE = """\
```yaml
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata:
  name: qotm
spec:
  hostname: "*"
  prefix: /qotm/
  service: qotm
  load_balancer:
    policy: maglev
    cookie:
      name: sticky-cookie
      ttl: 60s
```

The flat form (`apiVersion: ambassador/v1`, all fields beside `kind`) and documents in the annotation
`getambassador.io/config` of a Service mean the same. Versions: `v0`, `v1`, `v2`, `v3alpha1`.
"""


_HOSTS = """\
A request is for the most special Host that its authority fits: the exact name, then the longest
`*.suffix`, then a glob with its star at the end, then `*`. Without any Host every name is served. A
Mapping is reachable by a Host if its own `hostname` fits the request (none fits all) and its labels
have all that `mappingSelector` asks for.

What is not secure is redirected (301) where it has a route, as in Emissary even if the Host has no
certificate here; `check` warns of that. Routes for `/.well-known/acme-challenge/` are open to all.

The certificate of a handshake is chosen by the server name in the same order; a name that none is for
gets that of `--tls-cert`, else the alert `unrecognized_name`. Everything else that a Host says about
TLS holds for its own handshakes. With `cert_required` its requests are answered only over a connection
that its own handshake made; 421 tells a client to open one. A bind without a scheme speaks TLS too as
soon as there is a certificate for it.
"""

_SECRETS = """\
Secrets (`v1`) are read from files as they are from the cluster: `tls.crt` and `tls.key` (also
`user.crt`, `cert-chain.pem`), `ca.crt` of authorities, `crl.pem`; `data` or `stringData`. What they
hold is shown nowhere. In a file a Secret that is not there is refused; in a cluster it may come later,
and until then there is no certificate for that name, or with `cert_required` no way in.

A changed certificate, Secret or file is met by new connections; those that are open stay.

A Mapping's `tls` names the TLSContext by which its service is met: its certificate is shown, its CA
verifies the service. Without a CA the service is not verified, with a warning.
"""

_LISTENERS = """\
With any Listener, and without `--bind`, the default port is not opened; with `--bind` both are. Ports
open and close as Listeners come and go; connections on a port that closes may end what they began,
within `--drain-timeout`. A port that cannot be had is told, tried again every 10 seconds, and keeps no
other from opening; if none can be had, the start fails.
"""


def render() -> str:
    """The whole page."""
    parts = [_INTRO, "## Mapping\n", _EXAMPLE, _section(MappingSpec, None)]
    parts += [_section(shape, title) for title, shape in _NESTED.items()]
    parts += [
        _known("These fields of a Mapping are known and have no effect yet", known.MAPPING_IGNORED),
        "## Module\n",
        "`kind: Module`, `name: ambassador`; the fields stand under `config`.\n",
        _section(ModuleSpec, None),
        _section(ClientCertDetailsSpec, "set_current_client_cert_details"),
        _section(IpRangeSpec, "ip_allow, ip_deny: an item"),
        _known("These are known and have no effect yet", known.MODULE_IGNORED),
        *_edge(),
        "## StickyProxy\n",
        _about(ProcessSpec),
        "Keys may be written with `_` for `-`. " + _lists(),
        _section(ProcessSpec, None),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def json_schema() -> dict[str, Any]:
    """One JSON Schema (2020-12) with a definition for each kind of document."""
    shapes = [MappingSpec, ModuleSpec, HostSpec, TlsContextSpec, ListenerDocument, ProcessSpec]
    (_, components) = msgspec.json.schema_components(shapes, ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stickyproxy documents",
        "$defs": components,
    }


_NESTED: dict[str, type[Struct]] = {
    "load_balancer": LoadBalancerSpec,
    "load_balancer.cookie": CookieSpec,
    "regex_rewrite": RegexRewriteSpec,
    "add_request_headers, add_response_headers: a value": HeaderAddSpec,
    "endpoints: an item": EndpointSpec,
    "regex_redirect": RegexRedirectSpec,
    "cors": CorsSpec,
    "keepalive": KeepaliveSpec,
    "retry_policy": RetryPolicySpec,
    "circuit_breakers: an item": CircuitBreakerSpec,
    "health_checks: an item": HealthCheckSpec,
    "health_checks: health_check": CheckSpec,
    "health_checks: health_check.http": HttpCheckSpec,
    "health_checks: health_check.http.expected_statuses: an item": StatusRangeSpec,
    "health_checks: health_check.http.add_request_headers: a value": HeaderValueSpec,
    "health_checks: health_check.grpc": GrpcCheckSpec,
}


def _edge() -> list[str]:
    """Host, TLSContext, Listener, Secret."""
    none = "These are known and have no effect"
    return [
        "## Host\n",
        _about(HostSpec),
        _HOSTS,
        _section(HostSpec, None),
        _section(InsecureSpec, "requestPolicy.insecure"),
        _section(SelectorSpec, "mappingSelector, selector"),
        _section(SecretRefSpec, "tlsSecret"),
        _known(none, HOST_IGNORED),
        "## TLSContext\n",
        _about(TlsContextSpec),
        _SECRETS,
        _section(TlsContextSpec, None),
        _known(none, TLS_CONTEXT_IGNORED),
        "## Listener\n",
        _about(ListenerDocument),
        _LISTENERS,
        _section(ListenerDocument, None),
        _section(HostBindingSpec, "hostBinding"),
        _known(none, LISTENER_IGNORED),
    ]


def _lists() -> str:
    return "Text or a list: " + ", ".join(f"`{name}`" for name in sorted(LISTS)) + ".\n"


def _about(shape: type[Struct]) -> str:
    lines = (shape.__doc__ or "").strip().splitlines()
    return "\n".join(line.strip() for line in lines) + "\n"


def _known(intro: str, names: frozenset[str]) -> str:
    return f"{intro}: {', '.join(f'`{name}`' for name in sorted(names))}.\n"


def _section(shape: type[Struct], title: str | None) -> str:
    head = f"### {title}\n\n{_about(shape)}\n" if title else ""
    return head + "| field | | meaning |\n| --- | --- | --- |\n" + "\n".join(_rows(shape)) + "\n"


def _rows(shape: type[Struct]) -> Iterator[str]:
    info = inspect.type_info(shape)
    found = info.fields if isinstance(info, inspect.StructType) else ()
    own = shape.__annotations__  # before those of the struct that it extends
    for item in sorted(found, key=lambda item: item.name not in own):
        about, examples = _meta(item.type)
        example = f" Example: `{examples[0]}`." if examples else ""
        need = "required" if item.required else ""
        yield f"| `{item.encode_name}` | {need} | {_cell(about + example)} |"


def _meta(shape: inspect.Type) -> tuple[str, list[str]]:
    about = ""
    examples: list[str] = []
    while isinstance(shape, inspect.Metadata):
        extra = shape.extra_json_schema or {}
        about = about or extra.get("description", "")
        examples = examples or extra.get("examples", [])
        shape = shape.type
    return about, examples


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    if "--schema" in sys.argv[1:]:
        sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
    else:
        sys.stdout.write(render())
