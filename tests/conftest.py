"""Settings that every test shares: how hard Hypothesis looks, and from which seed."""

from __future__ import annotations

import os
from secrets import randbelow

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ("support.http_lab",)  # processes that are dear to start, for several files

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "fast")

# No deadline: the machine that runs this may be busy, and a slow example is no wrong one. In CI the
# examples follow from the test alone, so that a red build can be had again at home.
settings.register_profile("fast", deadline=None, derandomize="CI" in os.environ)
settings.register_profile(
    "deep",
    deadline=None,
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "5000")),
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile(PROFILE)


@pytest.hookimpl(tryfirst=True)  # before Hypothesis reads the option
def pytest_configure(config: pytest.Config) -> None:
    if PROFILE == "deep" and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(randbelow(2**32))


def pytest_report_header(config: pytest.Config) -> list[str]:
    if PROFILE != "deep":
        return []
    examples = settings.get_profile(PROFILE).max_examples
    return [
        f"deep: {examples} examples a property, --hypothesis-seed={config.option.hypothesis_seed}"
    ]
