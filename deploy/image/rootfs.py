"""Gather the root file system of the image: an environment, its interpreter, and what both link to.

`rootfs.py ENVIRONMENT ROOTFS`, run by the interpreter of ENVIRONMENT on a Debian that has it from its
own packages. What comes from a Debian package brings its licence and its entry for scanners along
(`var/lib/dpkg/status.d`, where they look in images without dpkg).
"""
# ruff: noqa: INP001, S603, S607 (a script, run where ldd and dpkg are Debian's)

from __future__ import annotations

import compileall
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

UNUSED = frozenset(
    (
        "__pycache__",  # made anew, below
        "dist-packages",  # Debian's own
        "ensurepip",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "test",
        "tkinter",
        "turtledemo",
        "venv",
    )
)
"""Folders of the standard library that a server has no use for: a quarter of its size."""

UNUSED_EXTENSIONS = re.compile(r"(_curses|_curses_panel|_dbm|_gdbm|_sqlite3|_tkinter|readline)\.")
"""Extension modules that would bring libraries of their own along."""

CONFIGURED = {
    "etc/group": "stickyproxy:x:65532:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/passwd": "stickyproxy:x:65532:65532:stickyproxy:/nonexistent:/nonexistent\n",
}
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
OPENSSL = Path("/etc/ssl/openssl.cnf")


def gather(environment: Path, rootfs: Path) -> None:
    """Everything, by name; two runs on the same packages give the same files."""
    rootfs.mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):  # Debian's merged /usr: the loader is /lib64/...
        if (link := Path("/") / name).is_symlink():
            (rootfs / name).symlink_to(link.readlink())
    stdlib = Path(sysconfig.get_path("stdlib"))
    program = Path(sys.executable).resolve()
    found = [program, CERTIFICATES, OPENSSL, *files(stdlib), *files(environment)]
    found += libraries([program, *(file for file in found if ".so" in file.suffixes)])
    for file in dict.fromkeys([*found, *chain(Path(sys.executable))]):
        copy(file, rootfs)
    for name, text in CONFIGURED.items():
        place(rootfs / name).write_text(text)
    for package in sorted({*packages(found), "ca-certificates"}):  # whose file is made, not shipped
        describe(package, rootfs)
    (rootfs / "usr/lib/ssl").mkdir(parents=True, exist_ok=True)
    (rootfs / "usr/lib/ssl/openssl.cnf").symlink_to(OPENSSL)
    for folder in (stdlib, environment):
        compiled = rootfs / folder.relative_to("/")
        if not compileall.compile_dir(
            compiled,
            quiet=1,
            stripdir=str(rootfs),
            prependdir="/",
            invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,  # nothing changes here
        ):
            raise SystemExit(f"{folder}: not all of it compiles")


def files(folder: Path) -> Iterator[Path]:
    """All files and links below, without what is unused."""
    for entry in sorted(folder.iterdir()):
        if entry.name in UNUSED or UNUSED_EXTENSIONS.match(entry.name):
            continue
        if entry.name.startswith("config-"):  # for those who embed the interpreter
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from files(entry)
        else:
            yield entry


def libraries(programs: Iterable[Path]) -> list[Path]:
    """What they are linked against, the loader included, each as the loader looks for it."""
    found: dict[Path, None] = {}
    for program in programs:
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        if "not found" in told:
            raise SystemExit(f"{program}: {told}")
        found |= dict.fromkeys(Path(name) for name in re.findall(r"(/\S+) \(0x", told))
    inside = [one for one in found if not one.is_relative_to(sys.prefix)]
    return list(dict.fromkeys(step for one in inside for step in chain(one)))


def chain(path: Path) -> Iterator[Path]:
    """The links from a path to its file, and the file; folders in it are resolved."""
    path = path.parent.resolve() / path.name
    yield path
    if path.is_symlink():
        yield from chain(path.parent / path.readlink())


def place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def copy(file: Path, rootfs: Path) -> None:
    target = place(rootfs / file.relative_to("/"))
    if not target.exists() and not target.is_symlink():
        shutil.copy2(file, target, follow_symlinks=False)


def packages(found: Iterable[Path]) -> Iterator[str]:
    """The Debian packages that the files are from."""
    listed = {
        line: info.name.removesuffix(".list").partition(":")[0]
        for info in Path("/var/lib/dpkg/info").glob("*.list")
        for line in info.read_text().splitlines()
    }
    for file in found:
        for name in (str(file), str(file).removeprefix("/usr")):  # listed before /usr was merged
            if name in listed:
                yield listed[name]


def describe(package: str, rootfs: Path) -> None:
    told = subprocess.run(["dpkg", "-s", package], capture_output=True, text=True, check=True)
    place(rootfs / "var/lib/dpkg/status.d" / package).write_text(told.stdout)
    licence = Path("/usr/share/doc") / package / "copyright"
    copy(licence.resolve(), rootfs)
    if licence.resolve() != licence:
        link = place(rootfs / licence.relative_to("/"))
        if not link.exists():
            shutil.copyfile(licence, link)


if __name__ == "__main__":
    gather(Path(sys.argv[1]), Path(sys.argv[2]))
