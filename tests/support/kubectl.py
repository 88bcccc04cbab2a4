"""`kubectl`, and the files by which it and others find an API server."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from support.kube_apiserver import ADMIN, ApiServerProcess
from support.toolbox import find


class Kubectl:
    """`kubectl` as the administrator of one server."""

    def __init__(self, server: ApiServerProcess) -> None:
        self.server = server
        self._command = [
            str(find("kubectl")),
            f"--server=https://127.0.0.1:{server.port}",
            f"--certificate-authority={server.ca}",
            f"--token={ADMIN}",
        ]

    def __call__(self, *arguments: str | Path, given: Any = None) -> str:
        """What it says. Raises AssertionError with its complaint."""
        done = self.tried(*arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tried(self, *arguments: str | Path, given: Any = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            input=json.dumps(given),
            env={**os.environ, "KUBECONFIG": os.devnull},
        )


def kubeconfig(server: ApiServerProcess, token: str, folder: Path) -> Path:
    """A file that makes its reader the one with this token."""
    context = {"cluster": "it", "user": "it", "namespace": "default"}
    where = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": str(server.ca)}
    found = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "contexts": [{"name": "it", "context": context}],
        "clusters": [{"name": "it", "cluster": where}],
        "users": [{"name": "it", "user": {"token": token}}],
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(found))
    return file
