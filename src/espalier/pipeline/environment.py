"""What a run ran on, for its record: enough to explain a difference, nothing that identifies a person."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from espalier import __version__
from espalier.core.types.runs import Environment

_GIT_TIMEOUT_S = 10


def describe_environment(packages: Mapping[str, str], commit: str) -> Environment:
    """This machine and interpreter; `packages` are those the step uses, `commit` the state of the user's project."""
    return Environment(
        espalier=__version__,
        python=platform.python_version(),
        platform=platform.platform(terse=True),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        packages=dict(packages),
        git=commit,
    )


def find_commit(folder: Path) -> str:
    """The commit of the git work tree `folder` is in, with "+dirty" when it has changes; empty without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    return f"{commit}+dirty" if commit and _git(folder, "status", "--porcelain", "--", ".") else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
