"""`./dev`: finds a Python, makes .venv, keeps it, rebuilds it. The script is the real one.

Python here is a shell script that plays interpreter, venv and pip, so that each way of failing is a
line and nothing is fetched; that the real ones work is shown by every run of `.ci/run`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("cat", "chmod", "cksum", "dirname", "mkdir", "mv", "rm", "sh", "sleep")

# $0 -c CODE answers what ./dev asks; -m venv and -m pip leave traces. Set before it: VERSION (minor
# of Python 3), ENSUREPIP (yes or no).
PLAY = r"""
case "$1 $2" in
"-c "*version_info*'< (3, 11)'*) [ "$VERSION" -ge 11 ] ;;
"-c import sys; print("*version_info*) echo "3.$VERSION" ;;
"-c import sys; print("*sys.version*) echo "3.$VERSION at $HOME" ;;
"-c import ensurepip"*) [ "$ENSUREPIP" = yes ] ;;
"-c "*) exit 0 ;;
"-m venv")
    echo venv >>"$LOG"
    [ -z "${VENV_BREAKS:-}" ] || { echo 'venv: no space left'; exit 1; }
    mkdir -p "$3/bin"
    cat "$0" >"$3/bin/python"
    chmod +x "$3/bin/python"
    ;;
"-m pip")
    [ "$3" = install ] || exit 0
    echo "pip in $(pwd -P)" >>"$LOG"
    [ -z "${PIP_BREAKS:-}" ] || { echo 'ERROR: no matching distribution'; exit 1; }
    [ -z "${PIP_KILLS:-}" ] || kill -9 "$(cat .venv.lock)"
    just=$(dirname -- "$0")/just
    printf '#!/bin/sh\nprintf "just:"; printf " <%%s>" "$@"; echo\n' >"$just"
    chmod +x "$just"
    ;;
esac
"""


class Checkout:
    """What `./dev` needs, in a folder with spaces, and a PATH on which there is nothing else."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a check out"
        self.tools = folder / "tools"
        self.log = folder / "log"
        self.root.mkdir()
        self.tools.mkdir()
        for tool in TOOLS:
            (self.tools / tool).symlink_to(str(shutil.which(tool)))
        for name in ("dev", "Justfile", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)

    def python(self, name: str, *, minor: int = 11, ensurepip: bool = True) -> None:
        path = self.tools / name
        setting = f"VERSION={minor}\nENSUREPIP={'yes' if ensurepip else 'no'}\n"
        path.write_text(f"#!{self.tools}/sh\n{setting}{PLAY}")
        path.chmod(0o755)

    def dev(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "dev"), *arguments],
            cwd=self.root.parent,
            env={
                "PATH": str(self.tools),
                "HOME": "/nowhere",
                "LOG": str(self.log),
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def done(self) -> list[str]:
        """What was made since last asked: `venv`, `pip in FOLDER`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    @property
    def pip(self) -> str:
        return f"pip in {self.root}"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


# --- finding Python -----------------------------------------------------------------------------


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line with which it refused."""
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_without_python_one_line_names_what_to_install(checkout: Checkout) -> None:
    assert "install Python 3.11 or newer, with venv" in refusal(checkout.dev())


def test_an_old_python_is_named_with_its_version(checkout: Checkout) -> None:
    checkout.python("python3", minor=9)

    assert "python3 is Python 3.9: install Python 3.11 or newer" in refusal(checkout.dev("test"))


def test_a_stock_debian_python_is_told_which_package_it_lacks(checkout: Checkout) -> None:
    checkout.python("python3", minor=12, ensurepip=False)

    assert "apt-get install python3.12-venv" in refusal(checkout.dev("demo"))


def test_a_command_that_is_there_but_does_not_run_is_passed_over(checkout: Checkout) -> None:
    checkout.python("python3.12")
    (checkout.tools / "python3.13").write_text(f"#!{checkout.tools}/sh\nexit 127\n")
    (checkout.tools / "python3.13").chmod(0o755)

    assert "with python3.12" in checkout.dev("test").stderr


def test_a_python_without_venv_is_passed_over_for_one_that_has_it(checkout: Checkout) -> None:
    checkout.python("python3.13", minor=13, ensurepip=False)
    checkout.python("python3", minor=11)

    assert checkout.dev("test").returncode == 0


def test_the_variable_decides_and_is_not_second_guessed(checkout: Checkout) -> None:
    checkout.python("python3.13", minor=13)
    checkout.python("oldpython", minor=10)

    assert "oldpython is Python 3.10" in refusal(checkout.dev(PYTHON="oldpython"))
    assert "PYTHON=nopython does not run" in refusal(checkout.dev(PYTHON="nopython"))


# --- making the environment ---------------------------------------------------------------------


@pytest.fixture
def made(checkout: Checkout) -> Checkout:
    """A checkout whose environment is there."""
    checkout.python("python3.11")
    assert checkout.dev("test").returncode == 0
    assert checkout.done == ["venv", checkout.pip]
    return checkout


def test_the_recipe_and_its_arguments_arrive_as_they_were(made: Checkout) -> None:
    done = made.dev("test", "-k", "two words", "")

    assert done.stdout == f"just: <--justfile> <{made.root}/Justfile> <test> <-k> <two words> <>\n"


def test_alone_it_lists_the_recipes(made: Checkout) -> None:
    assert made.dev().stdout.endswith("<--list>\n")


def test_the_second_start_makes_nothing_and_says_nothing(made: Checkout) -> None:
    assert made.dev("test").stderr == ""
    assert made.done == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_list_of_packages_is_installed_in_place(made: Checkout, name: str) -> None:
    with (made.root / name).open("a") as file:
        file.write("# changed\n")

    assert made.dev("test").returncode == 0
    assert made.done == [made.pip]
    assert made.dev("test").returncode == 0
    assert made.done == []


def test_a_failing_pip_is_shown_whole_and_tried_again(made: Checkout) -> None:
    shutil.rmtree(made.root / ".venv")

    failed = made.dev("test", PIP_BREAKS="yes")

    assert failed.returncode == 1
    assert "ERROR: no matching distribution" in failed.stdout + failed.stderr
    assert made.done == ["venv", made.pip]
    assert made.dev("test").returncode == 0
    assert made.done == ["venv", made.pip]


def test_a_failing_venv_is_shown_and_tried_again(checkout: Checkout) -> None:
    checkout.python("python3.11")

    failed = checkout.dev("test", VENV_BREAKS="yes")

    assert failed.returncode == 1
    assert "no space left" in failed.stdout + failed.stderr
    assert checkout.dev("test").returncode == 0


def test_an_install_that_was_killed_is_begun_anew(made: Checkout) -> None:
    with (made.root / "constraints.txt").open("a") as file:
        file.write("# changed\n")

    assert made.dev("test", PIP_KILLS="yes").returncode == -signal.SIGKILL
    assert made.done == [made.pip]
    assert made.dev("test").returncode == 0
    assert made.done == ["venv", made.pip]


def test_an_environment_whose_python_is_gone_is_rebuilt(made: Checkout) -> None:
    (made.root / ".venv/bin/python").unlink()

    assert made.dev("test").returncode == 0
    assert made.done == ["venv", made.pip]


def test_an_environment_of_another_python_is_rebuilt_when_that_is_asked(made: Checkout) -> None:
    made.python("python3.12", minor=12)

    assert made.dev("test", PYTHON="python3.12").returncode == 0
    assert made.done == ["venv", made.pip]
    assert made.dev("test", PYTHON="python3.12").returncode == 0
    assert made.done == []


def test_a_moved_checkout_is_installed_again(made: Checkout) -> None:
    made.root = made.root.rename(made.root.with_name("moved"))

    assert made.dev("test").returncode == 0
    assert made.done[-1] == made.pip


def test_a_lock_whose_owner_died_holds_nobody(made: Checkout) -> None:
    shutil.rmtree(made.root / ".venv")
    gone = subprocess.Popen(["true"])
    gone.wait()
    (made.root / ".venv.lock").write_text(f"{gone.pid}\n")

    assert made.dev("test").returncode == 0
    assert not (made.root / ".venv.lock").exists()
