"""What people type."""

from __future__ import annotations

from stickyproxy.cli.commands import main

__all__ = ["main"]
