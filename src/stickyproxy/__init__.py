"""stickyproxy: the sticky, gRPC-aware HTTP/2 ingress that people can read."""

__version__ = "0.1.0"
