"""Names of Ambassador's language that we know and do not act on, so that a warning can tell."""

from __future__ import annotations

MAPPING_IGNORED = frozenset(
    """ambassador_id dns_type envoy_override error_response_overrides priority
    respect_dns_ttl""".split()  # noqa: SIM905 (a list of names reads better so)
)
"""Mapping fields of Emissary that are known and have no effect here; each is warned about."""

MODULE_IGNORED = frozenset(
    """admin_port allow_chunked_length ambassador_id auth_enabled buffer debug_mode defaults
    diag_port diagnostics enable_grpc_http11_bridge envoy_log_format
    envoy_log_path envoy_log_type envoy_validation_timeout error_response_overrides
    grpc_stats gzip header_case_overrides liveness_probe
    load_shedding lua_scripts proper_case prune_unreachable_routes readiness_probe
    regex_max_size regex_type rewrite_upgrade_insecure service_port
    statsd strict_match_hostname suppress_envoy_headers tls
    use_ambassador_namespace_for_service_resolution""".split()  # noqa: SIM905 (a list of names reads better so)
)

IDENTITY = frozenset(("apiVersion", "kind", "name", "namespace", "generation", "metadata_labels"))
"""Keys of a flat document that are no fields of its spec."""
