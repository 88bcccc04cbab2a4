"""Changes that people make to files are noticed, however they make them."""

# ruff: noqa: ARG001 - pytest-trio takes its clock from the arguments of a test

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from stickyproxy.control.files import EVERY, FileWatch


class Looks:
    """A watch over `paths`, and how often it has cried."""

    def __init__(self, *paths: Path) -> None:
        self.paths = list(paths)
        self.cries = 0
        self.watch = FileWatch(lambda: self.paths, self._cry)

    def _cry(self) -> None:
        self.cries += 1

    async def after(self, change: Callable[[], object]) -> int:
        """How often it cries within two looks after `change`."""
        before = self.cries
        change()
        await trio.sleep(2 * EVERY + 0.5)
        return self.cries - before


@pytest.fixture
def config_map(tmp_path: Path) -> Path:
    """A folder as kubelet mounts it: `a.yaml -> ..data/a.yaml`, `..data -> ..1`."""
    _version(tmp_path, "..1", "one")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    return tmp_path


def _version(mount: Path, name: str, content: str) -> None:
    (mount / name).mkdir()
    (mount / name / "a.yaml").write_text(content)


def _swap(mount: Path, name: str, content: str) -> None:
    """What kubelet does: a new folder, then `..data` renamed over the old link."""
    _version(mount, name, content)
    (mount / "..data_tmp").symlink_to(name)
    (mount / "..data_tmp").rename(mount / "..data")


async def test_config_map_swap_is_noticed_through_the_folder(
    config_map: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    looks = Looks(config_map)
    nursery.start_soon(looks.watch.run)
    assert await looks.after(lambda: _swap(config_map, "..2", "two")) == 1
    assert await looks.after(lambda: _swap(config_map, "..3", "two")) == 1
    assert await looks.after(lambda: None) == 0


async def test_what_was_read_by_request_meanwhile_is_not_told_again(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Who edits and sends a signal wants one reload; what comes after it is another change."""
    file = tmp_path / "a.yaml"
    file.write_text("one")
    looks = Looks(file)
    nursery.start_soon(looks.watch.run)

    def edit_and_ask(text: str) -> None:
        file.write_text(text)
        looks.watch.look()

    assert await looks.after(lambda: edit_and_ask("two!")) == 0
    assert await looks.after(lambda: file.write_text("three")) == 1


async def test_config_map_swap_is_noticed_through_a_file_of_it(
    config_map: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    looks = Looks(config_map / "a.yaml")
    nursery.start_soon(looks.watch.run)
    assert await looks.after(lambda: _swap(config_map, "..2", "one")) == 1


async def test_edit_in_place_with_its_time_set_back_is_noticed(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("one")
    looks = Looks(file)
    nursery.start_soon(looks.watch.run)
    stamp = file.stat()

    def edit() -> None:
        file.write_text("two")
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    assert await looks.after(edit) == 1


async def test_file_that_vanishes_and_one_that_returns_are_noticed(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("one")
    looks = Looks(file)
    nursery.start_soon(looks.watch.run)
    assert await looks.after(file.unlink) == 1
    assert await looks.after(lambda: file.write_text("one")) == 1


async def test_new_file_of_a_folder_is_watched_before_any_configuration_names_it(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """Its first version was refused, so no configuration names it; mending it must be noticed."""
    looks = Looks(tmp_path)
    nursery.start_soon(looks.watch.run)
    broken = tmp_path / "broken.yaml"
    assert await looks.after(lambda: broken.write_text("kind: [")) == 1
    assert await looks.after(lambda: broken.write_text("kind: Mapping")) == 1


async def test_change_between_loading_and_watching_is_noticed(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A start that waits for DNS takes its time; the file may change meanwhile."""
    file = tmp_path / "a.yaml"
    file.write_text("one")
    looks = Looks(file)
    file.write_text("changed before the watch ran")
    nursery.start_soon(looks.watch.run)
    assert await looks.after(lambda: None) == 1


async def test_file_that_a_new_configuration_names_is_watched_from_then_on(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("1")
    two.write_text("2")
    looks = Looks(one)
    nursery.start_soon(looks.watch.run)
    assert await looks.after(lambda: looks.paths.append(two)) == 0
    assert await looks.after(lambda: two.write_text("changed")) == 1
