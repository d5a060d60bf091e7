"""The workspace itself: making one, its settings, and the schemas of what people write."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Spec
from espalier.services.context import Context

_STARTER = {"starter.yaml": "recipe.yaml", "starter.jsonl": "examples/orders.jsonl"}
_MASKED = "********"


class InitWorkspace(Spec):
    """Where to make a workspace."""

    folder: Path = Field(Path(), description="folder to make a workspace; it is created when absent")
    starter: bool = Field(True, description="also write a commented recipe and example lines, where none are")


class WorkspaceMade(Spec):
    """What stands there now."""

    folder: str
    written: tuple[str, ...] = ()  # files this call made
    kept: tuple[str, ...] = ()  # files that were there and stay as they are

    def to_text(self) -> str:
        """For a terminal: what was made, and what to do next."""
        lines = [f"{self.folder} is a workspace"]
        lines += [f"  wrote  {name}" for name in self.written]
        lines += [f"  kept   {name}" for name in self.kept]
        here = "" if Path(self.folder) == Path.cwd() else f"cd {self.folder} && "
        steps = [f"  {here}espalier doctor            check this machine"]
        if "recipe.yaml" in (*self.written, *self.kept):
            steps.append(f"  {here}espalier run recipe.yaml   train and measure on the example lines")
        return "\n".join([*lines, "next:", *steps])


@operation("workspace.init", "POST /v1/workspace/init", positional=("folder",), role="admin")
def init(context: Context, request: InitWorkspace) -> WorkspaceMade:
    """Make a folder a workspace: `.espalier/` for its state, and a commented recipe to start from.

    Nothing that is there is changed, so it may be run again.

    Example:
        espalier init support && cd support && espalier run recipe.yaml
    """
    from espalier.store.disk import write_file
    from espalier.store.workspace import FOLDER, init_workspace

    root = context.place(request.folder).resolve()
    fresh = not (root / FOLDER).is_dir()
    workspace = init_workspace(root)
    written, kept = ([f"{FOLDER}/"], []) if fresh else ([], [f"{FOLDER}/"])
    for source, target in _STARTER.items() if request.starter else ():
        path = workspace.root / target
        if path.exists():
            kept.append(target)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, importlib.resources.files("espalier.recipes").joinpath(source).read_bytes())
        written.append(target)
    return WorkspaceMade(folder=str(root), written=tuple(written), kept=tuple(kept))


class ShowConfig(Spec):
    """Which settings to show."""

    key: str = Field("", description="one setting or group, e.g. serve.port or serve; empty = all")
    origins: bool = Field(False, description="also say where each value comes from")


class Setting(Spec):
    """One setting as it is in force."""

    key: str
    value: Any
    origin: str = ""  # default, the file, the variable or the --set it comes from


class Settings(Spec):
    """The settings in force."""

    file: str  # where to write others
    settings: tuple[Setting, ...]

    def to_text(self) -> str:
        """For a terminal: one line a setting."""
        wide = max(len(setting.key) for setting in self.settings)
        shown = [(setting, "" if setting.value is None else str(setting.value)) for setting in self.settings]
        values = max(len(text) for _, text in shown)
        lines = [f"{s.key:<{wide}}  {text:<{values}}  {s.origin}".rstrip() for s, text in shown]
        return "\n".join([*lines, f"file: {self.file}"])


@operation("config.show", "GET /v1/config", positional=("key",), role="admin")
def show_config(context: Context, request: ShowConfig) -> Settings:
    """Show the settings in force; with --origins, where each comes from.

    A value comes from, strongest first: --set, an ESPALIER_* variable, `.espalier/config.yaml`, the default.

    Example:
        ESPALIER_SERVE__PORT=8080 espalier config show serve --origins
    """
    from espalier.core.config import flatten
    from espalier.core.errors import NotFound, did_you_mean

    values = flatten(context.config.config.model_dump(mode="json"))
    wanted = {key: value for key, value in values.items() if _covers(request.key, key)}
    if not wanted:
        raise NotFound(f"no setting {request.key!r}", hint=did_you_mean(request.key, values))
    origins = context.config.origins
    return Settings(
        file=_config_file(context),
        settings=tuple(
            Setting(key=key, value=_mask(key, value), origin=origins.get(key, "default") if request.origins else "")
            for key, value in wanted.items()
        ),
    )


class ShowSchema(Spec):
    """Which schema to print."""

    what: Literal["recipe", "config", "data", "drift", "generate", "annotate", "apply", "create", "sft", "eval"] = (
        Field("recipe", description="recipe: a pipeline with every step's own keys; the others: one part alone")
    )


@operation("config.schema", "GET /v1/config/schema", positional=("what",))
def show_schema(context: Context, request: ShowSchema) -> dict[str, Any]:
    """Print the JSON Schema of a recipe, or of a part of one, for your editor.

    Example:
        espalier config schema > recipe.schema.json
        # then, as the recipe's first line:  # yaml-language-server: $schema=recipe.schema.json
    """
    from espalier.services.schemas import make_schema

    return make_schema(request.what)


def _covers(wanted: str, key: str) -> bool:
    return not wanted or key == wanted or key.startswith(f"{wanted}.")


def _mask(key: str, value: Any) -> Any:
    """A password inside a URL is never shown."""
    if key == "store.url" and "@" in str(value):
        head, _, tail = str(value).rpartition("@")
        scheme, _, _ = head.partition("://")
        return f"{scheme}://{_MASKED}@{tail}"
    return value


def _config_file(context: Context) -> str:
    from espalier.core.errors import NotFound

    try:
        return str(context.workspace.config_file)
    except NotFound:
        return "none: `espalier init` makes a workspace"
