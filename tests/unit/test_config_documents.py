"""What files may hold, and what is said where they do not."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from stickyproxy.config.load import load
from stickyproxy.config.text.compose import MAX_DEPTH, MAX_NODES, resolve
from stickyproxy.config.text.documents import MAX_FILE_BYTES, find_files, parse, read_file
from stickyproxy.errors import ConfigError
from support.written import Written, mapping


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def problems(text: str | bytes) -> list[str]:
    data = text if isinstance(text, bytes) else text.encode()
    documents, found = parse(data, "f.yaml")
    assert bool(documents) != bool(found)
    return found


def test_documents_know_their_lines() -> None:
    documents, found = parse(b"kind: A\n---\n\nkind: B\nx:\n  y: 1\n", "f.yaml")

    assert found == []
    assert [(d.kind, d.line) for d in documents] == [("A", 1), ("B", 4)]
    node = documents[1].root.get("x", "y")
    assert node is not None
    assert (node.line, node.value, node.text) == (6, 1, "1")


def test_empty_documents_and_a_byte_order_mark_are_fine() -> None:
    documents, found = parse(b"\xef\xbb\xbf---\n---\n# only words\n---\nkind: A\n---\n", "f.yaml")

    assert [d.kind for d in documents] == ["A"]
    assert found == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: is given twice (first in line 1); keep one"),
        ("a: 1\n\tb: 2\n", "indent with spaces"),
        ("a: [1\n", "f.yaml:2: is not YAML"),
        ("a: 1\n---\n- 1\n", "f.yaml:3: a document must be a mapping with a kind, not a list"),
        ("just words\n", "f.yaml:1: a document must be a mapping with a kind, not `just words`"),
        (b"a: 1\nb: \xff\n", "f.yaml:2: is not UTF-8; save the file as UTF-8"),
        ("a: 1\nb: \x07\n", "f.yaml:2: is not YAML: a control character"),
        ("a: *b\n", "f.yaml:1: alias *b has no anchor &b before"),
        ("a: &b\n  c: *b\n", "f.yaml:2: alias *b contains itself"),
        ("a: !!python/object:os.system x\n", "f.yaml:1: tag !!python/object:os.system is not"),
        ("? [a]\n: 1\n", "f.yaml:1: a key must be text"),
        ("a: 1\n<<: 3\n", "f.yaml:2: <<: takes a mapping"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str | bytes, said: str) -> None:
    (problem,) = problems(text)

    assert said in problem


def test_aliases_and_merge_keys_work() -> None:
    documents, found = parse(
        b"base: &b {x: 1, y: 2}\nmine:\n  <<: *b\n  y: 3\nagain: *b\n", "f.yaml"
    )

    assert found == []
    plain = {key: node.plain() for key, node in (documents[0].root.mapping or {}).items()}
    assert plain == {
        "base": {"x": 1, "y": 2},
        "mine": {"x": 1, "y": 3},
        "again": {"x": 1, "y": 2},
    }


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )

    (problem,) = problems(bomb)

    assert f"has more than {MAX_NODES} values" in problem


def test_deep_nesting_is_refused_however_deep_it_is() -> None:
    (problem,) = problems("a: " + "[" * 100_000)

    assert f"is nested deeper than {MAX_DEPTH} levels" in problem


def test_nesting_through_aliases_counts_too() -> None:
    chain = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))

    (problem,) = problems(chain)

    assert f"is nested deeper than {MAX_DEPTH} levels" in problem


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))

    documents, found = read_file(path)

    assert documents == []
    assert found == [f"{path}: is larger than {MAX_FILE_BYTES} bytes; split it"]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"

    assert read_file(path) == ([], [f"{path}: cannot be read: no such file or directory"])


def test_what_is_no_file_is_refused_at_once_and_said_what_it_is(tmp_path: Path) -> None:
    """Opening a pipe waits for somebody who writes: nothing may be opened to find out."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    link = tmp_path / "link.yaml"
    link.symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.yaml"))

        assert read_file(tmp_path / "s.yaml") == (
            [],
            [f"{tmp_path}/s.yaml: cannot be read: it is a socket, not a file"],
        )
    for path in (pipe, link):
        assert read_file(path) == ([], [f"{path}: cannot be read: it is a named pipe, not a file"])
    assert read_file(Path("/dev/zero")) == (
        [],
        ["/dev/zero: cannot be read: it is a device, not a file"],
    )


def test_a_folder_stands_for_its_yaml_files_in_order(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", ".hidden.yaml", "c.json"):
        (tmp_path / name).write_text("")
    (tmp_path / "sub.yaml").mkdir()

    assert find_files([tmp_path]) == ([tmp_path / "a.yaml", tmp_path / "b.yml"], [])


def test_a_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    data = tmp_path / "..2026"
    data.mkdir()
    (data / "a.yaml").write_text(mapping())
    (tmp_path / "..data").symlink_to(data)
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    assert find_files([tmp_path]) == ([tmp_path / "a.yaml"], [])
    assert [route.name for route in load([tmp_path]).routes] == ["m"]


def test_a_folder_without_yaml_is_a_problem(tmp_path: Path) -> None:
    files, found = find_files([tmp_path])

    assert files == []
    assert found == [f"{tmp_path}: is a folder without *.yaml or *.yml files; name another"]


def test_all_problems_of_all_files_are_told_at_once(written: Written) -> None:
    one = written.file("a: [\n", "one.yaml")
    two = written.file(mapping(weight="heavy") + mapping(name="n", prefix="7"), "two.yaml")

    with pytest.raises(ConfigError) as caught:
        load([one, two, written.folder / "three.yaml"])

    places = [problem.replace(f"{written.folder}/", "") for problem in caught.value.problems]
    assert [place.partition(": ")[0] for place in places] == [
        "one.yaml:2",
        "three.yaml",
        "two.yaml:7",
        "two.yaml:12",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("007", "007"),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("yes", True),
        ("Off", False),
        ("y", "y"),
        ("~", None),
        ("60s", "60s"),
        ("9" * 30, "9" * 30),
    ],
)
def test_plain_scalars_are_read_as_kubernetes_reads_them(text: str, value: object) -> None:
    found = resolve(text)

    assert (type(found), found) == (type(value), value)
