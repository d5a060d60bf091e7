"""`@step`: a versioned function that a pipeline can run, cache and run elsewhere.

A step is pure but for its declared inputs: its spec, its input artifacts, the files and environment variables it names.
It runs in a child process from (name, spec JSON, artifact digests) and knows no pipeline, engine or store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.ports import StepContext
from espalier.core.types import Spec

StepFunction = Callable[[StepContext, Any], None]


FilesOf = Callable[[Any, Path], Iterable[Path]]  # (spec, the folder its relative paths start at) -> files


EnvOf = Callable[[Any], Iterable[str]]  # spec -> environment variables it names


OutsideOf = Callable[[Any], str]  # spec -> what it reads that no key can hold, empty when there is nothing


def _nothing_outside(spec: Any) -> str:
    return ""


def no_files(spec: Any, folder: Path) -> Iterable[Path]:
    """For a step or method that reads no file of the user's."""
    return ()


@dataclass(frozen=True, slots=True)
class Step:
    """A declared step. `inputs` maps a port to the artifact kind it takes; a trailing `?` makes it optional.

    An input `mix.*` stands for any number of ports called mix.NAME.
    """

    name: str
    version: int
    spec: type[Spec]
    function: StepFunction
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    files: FilesOf = no_files  # user files the spec names; their content is in the key
    env: tuple[str, ...] | EnvOf = ()  # environment variables the function reads; their values are in the key, hashed
    side_effect: bool = False  # idempotent by key, never cached: register, deploy
    outside: OutsideOf = _nothing_outside  # a bucket, a page: it may change unseen, so the step is done every time
    summary: str = ""

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    def list_variables(self, spec: Any) -> tuple[str, ...]:
        """The environment variables that the step reads with this spec."""
        return tuple(self.env(spec) if callable(self.env) else self.env)

    @property
    def module(self) -> str:
        return self.function.__module__


def step(
    name: str,
    *,
    version: int,
    spec: type[Spec],
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    files: FilesOf = no_files,
    env: tuple[str, ...] | EnvOf = (),
    side_effect: bool = False,
    outside: OutsideOf = _nothing_outside,
) -> Callable[[StepFunction], Step]:
    """Declare `function(context, spec)` as step `name`; the decorated name becomes the `Step`."""

    def declare(function: StepFunction) -> Step:
        summary = (function.__doc__ or "").strip().split("\n")[0]
        return Step(
            name, version, spec, function, inputs or {}, outputs or {}, files, env, side_effect, outside, summary
        )  # fmt: skip

    return declare


def find_port(ports: Mapping[str, str], name: str) -> str | None:
    """The kind that port `name` takes, None when there is no such port. `mix.*` stands for mix.anything."""
    family = name.partition(".")[0] + ".*"
    return ports.get(name, ports.get(family) if "." in name else None)


def check_ports(declared: Step, given: Iterable[str]) -> None:
    """Raise InvalidInput unless `given` are exactly the step's inputs (optional ones may be missing)."""
    names = set(given)
    for name in names:
        if find_port(declared.inputs, name) is None:
            raise InvalidInput(f"{declared.id} has no input {name!r}", hint=did_you_mean(name, declared.inputs))
    for name, kind in declared.inputs.items():
        if name not in names and not kind.endswith("?"):
            raise InvalidInput(f"{declared.id} needs input {name!r} ({kind})", hint=f"add `{name}: <step>.<output>`")
