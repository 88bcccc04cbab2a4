"""The one text for outlier detection and slow start, wherever it is said."""

from __future__ import annotations

import pytest

from stickyproxy.config.fields.tuning import NO_OUTLIERS, outlier_detection, show, slow_start
from stickyproxy.config.load import load
from stickyproxy.errors import ConfigError
from stickyproxy.rules import OutlierDetection, SlowStart


@pytest.mark.parametrize("text", ["off", "Off", "false", "no", "0"])
def test_off_is_off(text: str) -> None:
    assert outlier_detection(text).max_ejection_percent == 0
    assert slow_start(text).window == 0


@pytest.mark.parametrize("text", ["on", "True", "yes"])
def test_on_is_the_default(text: str) -> None:
    assert outlier_detection(text) == OutlierDetection()
    assert slow_start(text) == SlowStart()


@pytest.mark.parametrize(
    "text",
    [
        "interval=5s,consecutive_5xx=7",
        "interval=5s, consecutive_5xx=7",
        " consecutive_5xx=7 interval=5000ms ",
        "interval=5 consecutive_5xx=7",
    ],
)
def test_what_is_named_differs_and_the_rest_is_the_default(text: str) -> None:
    assert outlier_detection(text) == OutlierDetection(interval=5.0, consecutive_5xx=7)


def test_a_yes_or_no_is_read_as_one() -> None:
    text = "successful_active_health_check_uneject_host=on"
    assert outlier_detection(text).successful_active_health_check_uneject_host


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("30s", SlowStart(window=30.0)),
        ("30", SlowStart(window=30.0)),
        ("1m30s", SlowStart(window=90.0)),
        ("window=20, aggression=1.5", SlowStart(window=20.0, aggression=1.5)),
        ("min_weight_percent=50", SlowStart(min_weight_percent=50.0)),
    ],
)
def test_slow_start_in_words(text: str, wanted: SlowStart) -> None:
    assert slow_start(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "maybe",
        "interval",
        "interval=",
        "interval=-1",
        "interval=nan",
        "interval=inf",
        "consecutive_5xx=1.5",
        "max_ejection_percent=101",
        "enforcing_success_rate=200",
        "successful_active_health_check_uneject_host=2",
        "unknown=1",
    ],
)
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="right would be"):
        outlier_detection(text)


@pytest.mark.parametrize("text", ["aggression=0", "min_weight_percent=200", "soon", "window=-1"])
def test_a_slow_start_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="right would be"):
        slow_start(text)


@pytest.mark.parametrize("text", ["off", "on", "interval=5, consecutive_5xx=7"])
def test_it_is_shown_as_it_is_said(text: str) -> None:
    assert show(outlier_detection(text)) == text
    flag = "successful_active_health_check_uneject_host=1"
    assert show(outlier_detection(flag)) == flag
    assert show(slow_start("0")) == "off"
    assert show(slow_start("30s")) == "window=30"


def test_flag_and_variable_say_it_for_the_process() -> None:
    flags = {"backend": ["a:1"], "outlier-detection": ["off"], "slow-start": ["5s"]}
    process = load([], flags, {"STICKYPROXY_PANIC_THRESHOLD": "0"}).process
    assert process.outlier_detection == NO_OUTLIERS
    assert process.slow_start.window == 5.0
    assert process.panic_threshold == 0
    variables = {"STICKYPROXY_OUTLIER_DETECTION": "consecutive_5xx=3, interval=2s"}
    process = load([], {"backend": ["a:1"]}, variables).process
    assert process.outlier_detection == OutlierDetection(consecutive_5xx=3, interval=2.0)


def test_a_wrong_one_names_its_flag() -> None:
    with pytest.raises(ConfigError, match="--panic-threshold: `101` is no whole number from 0"):
        load([], {"backend": ["a:1"], "panic-threshold": ["101"]}, {})
