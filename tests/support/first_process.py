"""The first process of a container, before it becomes that: mount, give up every right, execute.

Run by `support.image` in fresh namespaces, with its order as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS, prctl.h
DEVICES = (
    "null",
    "urandom",
)  # of those that every runtime gives (OCI runtime spec, default devices)


def become(order: Mapping[str, Any]) -> None:
    """`order`: rootfs, argv, env, user (`uid:gid`)."""
    rootfs = Path(order["rootfs"])
    for folder in ("proc", "dev"):
        (rootfs / folder).mkdir(exist_ok=True)  # a runtime makes these too
    for device in DEVICES:
        (rootfs / "dev" / device).touch()
    mount, root = str(shutil.which("mount")), str(rootfs)
    for words in (
        ["--bind", root, root],
        ["-t", "proc", "proc", f"{root}/proc"],
        *(["--bind", f"/dev/{device}", f"{root}/dev/{device}"] for device in DEVICES),
        ["-o", "remount,bind,ro", root],
    ):
        subprocess.run([mount, *words], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    user, _, group = order["user"].partition(":")
    os.chroot(rootfs)
    os.chdir("/")
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(user))  # takes every capability along
    ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    os.environ["PATH"] = order["env"]["PATH"]  # which execvpe searches
    os.execvpe(order["argv"][0], order["argv"], order["env"])  # noqa: S606 (the order is ours)


if __name__ == "__main__":
    become(json.loads(sys.argv[1]))
