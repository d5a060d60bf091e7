"""`Workspace`: the folder all of a project's state lives in, found as git finds its own.

    .espalier/
      config.yaml          settings (core/config.py)          espalier.db          records (SQLite, WAL)
      blobs/ab/cd...       bytes by sha256                     artifacts/<digest>/  artifacts laid out as folders
      runs/<run>/          events.jsonl, log.txt               staging/<run>/       a running step's outputs
      scratch/<key>/       checkpoints of a step not finished  cache/              what may be deleted at any time

Knows where things are, not what is in them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from espalier.core.errors import InvalidInput, NotFound
from espalier.store.disk import storage_errors, write_file

FOLDER = ".espalier"
VARIABLE = "ESPALIER_WORKSPACE"

_CONFIG = "# Settings of this workspace. `espalier config show --origins` lists them all and where each comes from.\n"


@dataclass(frozen=True, slots=True)
class Workspace:
    """`root` is the folder that holds `.espalier/`: the user's project."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def database_file(self) -> Path:
        return self.folder / "espalier.db"

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    def run_folder(self, run_id: str) -> Path:
        return self.folder / "runs" / run_id

    def staging_folder(self, run_id: str) -> Path:
        return self.folder / "staging" / run_id

    def scratch_folder(self, key: str) -> Path:
        return self.folder / "scratch" / key

    @property
    def cache_folder(self) -> Path:
        return self.folder / "cache"


def find_workspace(start: Path | None = None) -> Workspace:
    """The workspace named by $ESPALIER_WORKSPACE (when no `start` is given), or the nearest `.espalier/` upwards.

    Raises NotFound, with what to do, when there is none.
    """
    named = os.environ.get(VARIABLE, "")
    if start is None and named:
        workspace = Workspace(Path(named).expanduser().resolve())
        if not workspace.folder.is_dir():
            raise NotFound(f"${VARIABLE} is {named}, which holds no {FOLDER} folder", hint="run `espalier init` there")
        return workspace
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return Workspace(folder)
    raise NotFound(f"no workspace in {here} or above it", hint="run `espalier init` in your project's folder")


def init_workspace(path: Path) -> Workspace:
    """Make `path` (created when absent) a workspace; one that is there already is left as it is."""
    if path.exists() and not path.is_dir():
        raise InvalidInput(f"{path} is a file", hint="name a folder")
    workspace = Workspace(path.resolve())
    with storage_errors(workspace.folder):
        workspace.folder.mkdir(parents=True, exist_ok=True)
    if not workspace.config_file.exists():
        write_file(workspace.config_file, _CONFIG.encode())
    ignore = workspace.folder / ".gitignore"
    if not ignore.exists():
        write_file(
            ignore,
            b"# State, not source, but for the settings.\n*\n!config.yaml\n",
        )
    return workspace
