"""What happens when, by the name of a scenario."""

from __future__ import annotations

import pytest

from chaos.job import POST
from chaos.scenarios import FAULTS, GROUPS, QUICK, Pace, Step, named, scenario

PACE = Pace()


@pytest.mark.parametrize("name", GROUPS["all"])
@pytest.mark.parametrize("pace", [PACE, QUICK], ids=["full", "quick"])
def test_every_scenario_of_the_catalogue_fits_its_time(name: str, pace: Pace) -> None:
    found = scenario(name, pace)
    times = [step.at for step in found.steps]

    assert times == sorted(times)
    assert all(at < found.pace.seconds for at in times)
    assert found.title


def test_the_goals_scenarios_are_measured_when_nobody_asks() -> None:
    assert {"none", "loss5", "bh-conn", "bh-host", "freeze", "rst", "goaway"} <= set(GROUPS["main"])
    assert "twilio.lossall3" in GROUPS["twilio"]


def test_loss_on_one_link_and_on_all() -> None:
    assert scenario("loss5", PACE).steps == (Step(-0.2, "loss", 5.0),)
    assert scenario("lossall0.5", PACE).steps == (Step(-0.2, "loss", 0.5, everywhere=True),)


def test_twilio_s_regime_is_one_backend_far_away() -> None:
    found = scenario("twilio.lossall3", PACE)

    assert (found.setup.backends, found.setup.rtt, found.setup.kind) == (1, 0.025, POST)
    assert (found.setup.rate, found.setup.body) == (1000, 1024)


@pytest.mark.parametrize("fault", ["bh-host", "freeze", "deaf", "mute", "flap"])
def test_what_ends_says_when(fault: str) -> None:
    found = scenario(fault, PACE)

    assert found.healed is not None
    assert PACE.on < found.healed < PACE.seconds


def test_a_dead_connection_stays_dead() -> None:
    assert scenario("bh-conn", PACE).healed is None


def test_traffic_and_fault_go_together_as_asked() -> None:
    found = scenario("tls.freeze", PACE)

    assert found.setup.tls
    assert [step.what for step in found.steps] == ["freeze", "thaw"]


def test_groups_stand_for_their_members_once_each() -> None:
    assert named(["loss5", "main", "twilio", "loss5"])[0] == "loss5"
    assert len(named(["main", "main"])) == len(GROUPS["main"])


@pytest.mark.parametrize("name", ["", "lossy", "loss", "ftp.none", "tls.", "tls.loss1.5.x"])
def test_a_name_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="one of"):
        scenario(name, PACE)


def test_every_fault_has_its_words() -> None:
    assert all(scenario(fault, PACE).title.startswith(words) for fault, words in FAULTS.items())
