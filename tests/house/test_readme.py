"""What the documents tell people to type exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "chaos").glob("*.md"),
    *(ROOT / "conformance").glob("*.md"),
]


def commands(markdown: str) -> list[list[str]]:
    """The command lines in `sh` blocks, split into words, comments dropped."""
    blocks = re.findall(r"^```sh\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    lines = (line for block in blocks for line in block.splitlines())
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def links(markdown: str) -> list[str]:
    """Relative links, without their anchors."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", markdown)
    return [link for link in found if "://" not in link]


@cache
def recipes() -> set[str]:
    just = Path(sys.executable).with_name("just")
    listed = subprocess.run(
        [just, "--justfile", ROOT / "Justfile", "--summary"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


@cache
def helped(*subcommand: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "stickyproxy", *subcommand, "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def missing(words: list[str]) -> list[str]:
    """Which words of a command name something that is not there."""
    if words[0] == "./dev":
        if words[1:] and words[1] not in recipes():
            return [words[1]]
        words = ["stickyproxy", *words[1:]] if words[1:2] in (["run"], ["demo"]) else []
    if not words or words[0] != "stickyproxy":
        return []
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [flag for flag in flags if not re.search(rf"{flag}\b", helped(words[1]))]


def all_commands() -> list[list[str]]:
    return [words for page in PAGES for words in commands(page.read_text())]


@pytest.mark.parametrize("words", all_commands(), ids=shlex.join)
def test_a_command_of_the_documents_exists(words: list[str]) -> None:
    assert missing(words) == []


def test_the_two_commands_of_a_fresh_machine_come_first() -> None:
    first = commands((ROOT / "README.md").read_text())[:2]

    assert first == [["./dev", "demo"], ["./dev", "test"]]


def test_a_recipe_or_flag_that_is_not_there_is_found() -> None:
    assert missing(["./dev", "frobnicate"]) == ["frobnicate"]
    assert missing(["stickyproxy", "run", "--frobnicate"]) == ["--frobnicate"]


def test_relative_links_lead_somewhere() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in links(page.read_text())
        if not (page.parent / link).exists()
    ]

    assert dead == []


def test_the_documents_of_the_readme_load_without_a_warning(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    file = tmp_path / "readme.yaml"
    file.write_text("---\n".join(blocks))

    done = subprocess.run(
        [sys.executable, "-m", "stickyproxy", "check", file, "--service", "qotm=127.0.0.1:8001"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["ok"]), done.stderr
    assert blocks


def test_the_index_names_every_page() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}

    assert pages - set(links((ROOT / "docs/README.md").read_text())) == set()


def test_a_relative_link_is_recognised() -> None:
    assert links("[a](b.md#c), [d](https://e.org), [f](#g)") == ["b.md"]


def absent(name: str) -> str:
    """The first part of a dotted name that is not in the source: `policy.hosts`, `proxy.hedge.race`."""
    place = ROOT / "src" / "stickyproxy"
    parts = name.split(".")
    for at, part in enumerate(parts):
        file = place / f"{part}.py"
        if (place / part).is_dir():
            place /= part
        elif file.exists():
            source = file.read_text()
            return next((p for p in parts[at + 1 :] if not re.search(rf"\b{p}\b", source)), "")
        else:
            return part
    return ""


def names_of_modules(markdown: str) -> list[str]:
    rooms = {path.name for path in (ROOT / "src" / "stickyproxy").iterdir() if path.is_dir()}
    names = re.findall(r"`([a-z]\w*(?:\.[A-Za-z_]\w*)+)`", markdown)
    return sorted({name for name in names if name.partition(".")[0] in rooms})


def test_modules_that_the_architecture_names_are_there() -> None:
    named = names_of_modules((ROOT / "docs" / "architecture.md").read_text())

    assert len(named) > 50
    assert [name for name in named if absent(name)] == []


def test_a_module_that_moved_is_found_out() -> None:
    assert absent("policy.hosts") == absent("control.workers.crew") == ""
    assert absent("config.load.Files") == ""
    assert absent("control.crew") == "crew"
    assert absent("policy.hosts.Nowhere") == "Nowhere"
