"""The one loader: files, environment and flags in, Settings or all problems out.

What a cluster says on top of that is `config.cluster.load`'s, which uses the second half of this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from stickyproxy.config.edge.front import contexts_in, front_of
from stickyproxy.config.fields.balancer import load_balancer
from stickyproxy.config.mappings.draft import DEFAULT_TIMEOUT, Defaults, Draft, draft
from stickyproxy.config.mappings.grouping import assemble
from stickyproxy.config.mappings.module import (
    check_header_limit,
    edge_policy,
    feature_defaults,
    with_header_limit,
)
from stickyproxy.config.mappings.pods import Resolving
from stickyproxy.config.mappings.remains import blame_remains
from stickyproxy.config.process.layers import OPTIONS, Given, layered
from stickyproxy.config.process.options import Options, backend_route, overrides, process_settings
from stickyproxy.config.process.settings import ProcessSettings
from stickyproxy.config.resources.ambassador import collect
from stickyproxy.config.resources.items import Resources
from stickyproxy.config.steps import Steps, finish
from stickyproxy.config.text.decode import Report, join
from stickyproxy.config.text.documents import Document, find_files, read_file
from stickyproxy.edge import Front
from stickyproxy.errors import ConfigError
from stickyproxy.model import ClusterSpec, LoadBalancer, Route
from stickyproxy.rules import EdgePolicy

NO_ROUTES = "no Mapping and no backend: every request is answered 404 (gRPC: UNIMPLEMENTED)"


@dataclass(frozen=True, slots=True)
class Files:
    """What files, environment and flags say, valid by itself; a cluster's objects may join it."""

    options: Options
    process: ProcessSettings
    resources: Resources
    sources: tuple[Path, ...]
    origins: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole, valid configuration.

    `warnings` are complete lines for people. `sources` are the files that were read and the folders
    that were looked through: what to watch for changes. `origins` says of each process setting
    where its value came from (`--flag`, an environment variable, file:line, `default`). `files` is
    what a cluster's objects may be added to.
    """

    process: ProcessSettings
    routes: tuple[Route, ...]
    clusters: tuple[ClusterSpec, ...]
    edge: EdgePolicy = field(default_factory=EdgePolicy)
    front: Front = field(default_factory=Front)
    warnings: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    origins: tuple[tuple[str, str], ...] = ()
    files: Files | None = field(default=None, repr=False, compare=False)


def load(
    paths: Sequence[Path],
    flags: Mapping[str, Sequence[str]] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read everything anew.

    `paths` are files and folders. `flags` has an option's name (`drain-delay`) and all its values.
    Raises `ConfigError` with every problem of every source; then nothing of them counts.
    """
    report = Report()
    files, problems = find_files(paths)
    report.problems.extend(problems)
    documents: list[Document] = []
    for file in dict.fromkeys(files):
        found, problems = read_file(file)
        documents.extend(found)
        report.problems.extend(problems)
    resources = collect(documents, report)
    given = layered(flags or {}, environ or {}, resources.process, report)
    options = Options(given, report.problems)
    process = with_header_limit(process_settings(options), resources.module, given)
    said = len(report.warnings)
    awaiting = replace(resources, awaited=process.kubernetes)
    routes, clusters = _routes(awaiting, options, process, report)
    said_by_files = Files(
        options=options,
        process=process,
        resources=resources,
        sources=_sources(paths, files, process),
        origins=_origins(given),
        warnings=tuple(report.warnings[:said]),
    )
    settings = settings_of(said_by_files, awaiting, routes, clusters, report)
    if report.problems:
        raise ConfigError(lines_of(report.problems), lines_of(report.warnings))
    return settings


def settings_of(
    files: Files,
    resources: Resources,
    routes: Sequence[Route],
    clusters: Sequence[ClusterSpec],
    report: Report,
) -> Settings:
    """All of it; what of the edge is wrong is complained about in the report."""
    check_header_limit(resources.module, files.process, files.origins, report)
    front, watched = _front(files, resources, report)
    return Settings(
        process=files.process,
        routes=tuple(routes),
        clusters=tuple(clusters),
        edge=edge_policy(
            resources.module, report, preserve_request_id=files.process.preserve_external_request_id
        ),
        front=front,
        warnings=tuple(lines_of(report.warnings)),
        sources=tuple(dict.fromkeys([*files.sources, *watched])),
        origins=files.origins,
        files=files,
    )


def _front(files: Files, resources: Resources, report: Report) -> tuple[Front, tuple[Path, ...]]:
    """While the cluster's Secrets are awaited, what is missing is not worth a word."""
    told = Report() if resources.awaited else report
    found = front_of(
        resources,
        told,
        binds_given="bind" in files.options.given,
        strict=not files.process.kubernetes,
    )
    if told is not report:
        report.problems += told.problems
    return found


def front_warnings(files: Files) -> list[str]:
    """What there is to say of the edge in files that a cluster completes, as complete lines."""
    report = Report()
    front_of(
        files.resources,
        report,
        binds_given="bind" in files.options.given,
        strict=False,
        awaiting=True,
    )
    return lines_of(report.warnings)


def lines_of(said: Iterable[str]) -> list[str]:
    """Each thing once, on one line: what is quoted from a file may hold anything."""
    return list(dict.fromkeys("".join(map(_shown, line)) for line in said))


def _shown(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _routes(
    resources: Resources, options: Options, process: ProcessSettings, report: Report
) -> tuple[list[Route], list[ClusterSpec]]:
    defaults, balancer = defaults_of(resources, options, process, report)
    drafts = [
        found
        for entry in resources.mappings
        if (found := draft(entry, defaults, report)) is not None
    ]
    for raw in resources.unread:
        blame_remains(raw, defaults, report)
    routes, clusters = finish(assembled(drafts, balancer, options, process, report))
    if not (report.problems or process.kubernetes):
        unused_services(defaults, options, report)
    if not (routes or report.problems or process.kubernetes):
        report.warnings.append(NO_ROUTES)
    return routes, clusters


def assembled(
    drafts: Sequence[Draft],
    balancer: LoadBalancer,
    options: Options,
    process: ProcessSettings,
    report: Report,
) -> Steps[tuple[list[Route], list[ClusterSpec]]]:
    """Mappings and `--backend` together."""
    more_routes, more_clusters = backend_route(options, process)
    taken = [spec.name for spec in more_clusters]
    routes, clusters = yield from assemble(drafts, balancer, taken, report)
    return routes + more_routes, clusters + more_clusters


def unused_services(defaults: Defaults, options: Options, report: Report) -> None:
    for name in defaults.overrides.unused():
        origin = options.given["service"].origin
        report.warnings.append(f"{origin}: no Mapping has the service {name}")


def _resolving(resources: Resources, process: ProcessSettings) -> Resolving:
    return Resolving(
        kubernetes=process.kubernetes,
        namespace="" if process.kube_namespace == "all" else process.kube_namespace,
        enabled=process.enable_endpoints,
        module=resources.module,
        defined=resources.resolvers,
    )


def defaults_of(
    resources: Resources, options: Options, process: ProcessSettings, report: Report
) -> tuple[Defaults, LoadBalancer]:
    timeout: float | None = DEFAULT_TIMEOUT
    balancer = LoadBalancer()
    module = resources.module
    if module is not None:
        if module.spec.cluster_request_timeout_ms is not None:
            timeout = module.spec.cluster_request_timeout_ms / 1000 or None
        if module.spec.load_balancer is not None:
            balancer = _module_balancer(resources, report) or balancer
    return (
        Defaults(
            overrides(options),
            timeout,
            process.backend_ca,
            process.backend_insecure,
            _resolving(resources, process),
            feature_defaults(module, report),
            None if resources.awaited else contexts_in(resources, Report(), strict=False),
        ),
        balancer,
    )


def _module_balancer(resources: Resources, report: Report) -> LoadBalancer | None:
    module = resources.module
    if module is None or module.spec.load_balancer is None:
        return None

    def complain(message: str, *keys: str) -> None:
        node = module.node.get("load_balancer")
        path = join(module.path, "load_balancer")
        for key in keys:
            node = (node and node.get(key)) or node
            path = join(path, key)
        line = node.line if node else module.node.line
        report.problem(module.document, line, path, message)

    return load_balancer(module.spec.load_balancer, complain)


def _sources(
    paths: Sequence[Path], files: Sequence[Path], process: ProcessSettings
) -> tuple[Path, ...]:
    folders = [path for path in paths if path.is_dir()]
    pair = [path for path in (process.tls_cert, process.tls_key, process.backend_ca) if path]
    return tuple(dict.fromkeys([*folders, *files, *pair]))


def _origins(given: Mapping[str, Given]) -> tuple[tuple[str, str], ...]:
    return tuple((name, given[name].origin if name in given else "default") for name in OPTIONS)
