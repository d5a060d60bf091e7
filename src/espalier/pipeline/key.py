"""The key of a step: one digest over all its result may depend on, kept as ingredients so a miss can be explained.

sha256 of { step name@version, python, code: module -> hash, packages, spec, inputs, env, files, lock, seed }
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from espalier.core.errors import NotFound
from espalier.core.ids import digest_of
from espalier.core.step import Step
from espalier.core.types import Spec
from espalier.pipeline.closure import CodeScanner
from espalier.store.facts import FileFacts


class Ingredients(Spec):
    """What goes into a key. Values of environment variables are hashed: they may be secrets."""

    step: str
    python: str
    code: dict[str, str]
    packages: dict[str, str]
    spec: dict[str, Any]
    inputs: dict[str, str]
    env: dict[str, str]
    files: dict[str, str]
    lock: str
    seed: int

    def key(self) -> str:
        """sha256 (hex) over all of it."""
        return digest_of(self.model_dump())


def collect(
    step: Step,
    spec: Spec,
    inputs: Mapping[str, str],
    *,
    seed: int,
    folder: Path,
    lock: str,
    scanner: CodeScanner,
    facts: FileFacts,
) -> Ingredients:
    """Gather a step's ingredients. `inputs`: port -> artifact digest. Raises NotFound for a file the spec names."""
    closure = scanner.scan(step.module)
    return Ingredients(
        step=step.id,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        code=dict(closure.modules),
        packages=dict(closure.packages),
        spec=spec.model_dump(mode="json"),
        inputs=dict(inputs),
        env={name: _hash_text(os.environ.get(name)) for name in step.list_variables(spec)},
        files=_digest_files(step, spec, folder, facts),
        lock=_digest_lock(folder, lock, facts),
        seed=seed,
    )


def _digest_files(step: Step, spec: Spec, folder: Path, facts: FileFacts) -> dict[str, str]:
    paths: set[Path] = set()
    for given in step.files(spec, folder):
        path = folder / given
        if path.is_dir():
            paths.update(file for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            paths.add(path)
        else:
            raise NotFound(f"{step.name} names {given}, which is not there", hint=f"paths are relative to {folder}")
    digests = facts.digests(sorted(paths))
    return {_name_of(path, folder): digest for path, digest in sorted(digests.items())}


def _name_of(path: Path, folder: Path) -> str:
    """How a file is named in a key: the same on every machine when it belongs to the project."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix()


def _digest_lock(folder: Path, lock: str, facts: FileFacts) -> str:
    if not lock:
        return ""
    path = folder / lock
    if not path.is_file():
        raise NotFound(f"no lock file {path}", hint="correct or drop `lock:`")
    return facts.digests([path])[path]


def _hash_text(text: str | None) -> str:
    return "unset" if text is None else sha256(text.encode()).hexdigest()
