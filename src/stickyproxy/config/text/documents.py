"""Files and folders of YAML documents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stickyproxy.config.text.compose import DocumentError, Node, compose
from stickyproxy.config.text.files import open_file

MAX_FILE_BYTES = 4 * 1024 * 1024  # a ConfigMap holds at most 1 MiB

_YAML_SUFFIXES = (".yaml", ".yml")


@dataclass(slots=True, eq=False)
class Document:
    """One document, a mapping. `file` is as people named it, or the object in the cluster.

    Line 0 is none to name: what the API server keeps has no lines.
    """

    file: str
    root: Node

    @property
    def line(self) -> int:
        return self.root.line

    @property
    def kind(self) -> str:
        node = self.root.get("kind")
        return node.text if node is not None else ""

    def at(self, line: int, path: str = "") -> str:
        """`file:line: path`, the beginning of each complaint."""
        place = f"{self.file}:{line}" if line else self.file
        return place + (f": {path}" if path else "")


def find_files(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """All files that these paths name, and a complaint for each path that names none.

    A folder stands for its `*.yaml` and `*.yml` files in order of name, hidden ones and subfolders
    left out: that is how a mounted ConfigMap shows itself.
    """
    files: list[Path] = []
    problems: list[str] = []
    for path in paths:
        try:
            found = _in_folder(path) if path.is_dir() else [path]
        except OSError as exc:
            problems.append(f"{path}: cannot be read: {exc.strerror}")
            continue
        if not found:
            problems.append(f"{path}: is a folder without *.yaml or *.yml files; name another")
        files.extend(found)
    return files, problems


def _in_folder(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in _YAML_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def read_file(path: Path) -> tuple[list[Document], list[str]]:
    """The documents of one file, or (none of them and) what is wrong with it."""
    try:
        with open_file(path) as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as exc:
        reason = exc.strerror or str(exc)
        return [], [f"{path}: cannot be read: {reason[0].lower() + reason[1:]}"]
    return parse(data, str(path))


def parse(data: bytes, file: str, first_line: int = 1) -> tuple[list[Document], list[str]]:
    """The documents in these bytes; `first_line` is where they start in `file`."""
    try:
        roots = list(compose(_decode(data)))
    except DocumentError as exc:
        place = f"{file}:{exc.line + first_line - 1}" if exc.line else file
        return [], [f"{place}: {exc.message}"]
    documents, problems = [], []
    for root in roots:
        root_line = root.line + first_line - 1
        if root.value is None:
            continue  # an empty document, as after a trailing `---`
        if root.mapping is None:
            problems.append(
                f"{file}:{root_line}: a document must be a mapping with a kind, not "
                f"{describe(root)}; right would be `kind: Mapping`"
            )
            continue
        documents.append(Document(file, _moved(root, first_line - 1)))
    return ([], problems) if problems else (documents, [])


def describe(node: Node) -> str:
    """A value in words, for complaints."""
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    if node.value is None:
        return "nothing"
    shown = node.text if len(node.text) <= 40 else node.text[:37] + "..."
    if isinstance(node.value, str):
        return f"`{shown}`"
    kind = {bool: "true or false", int: "a number", float: "a number"}[type(node.value)]
    return f"`{shown}` ({kind})"


def _decode(data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise DocumentError(0, f"is larger than {MAX_FILE_BYTES} bytes; split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise DocumentError(line, "is not UTF-8; save the file as UTF-8") from None


def _moved(root: Node, by: int) -> Node:
    """Shift all lines: documents inside an annotation stand further down in their file."""
    if by:
        seen: set[int] = set()
        todo = [root]
        while todo:
            node = todo.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            node.line += by
            node.keys = {key: line + by for key, line in node.keys.items()}
            if isinstance(node.value, dict):
                todo.extend(node.value.values())
            elif isinstance(node.value, list):
                todo.extend(node.value)
    return root
