"""`python -m stickyproxy` is `stickyproxy`."""

from __future__ import annotations

import sys

from stickyproxy.cli import main

sys.exit(main())
