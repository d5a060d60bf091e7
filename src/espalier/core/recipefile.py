"""A YAML file as a pydantic type, with errors that name file:line:column, the field, and what was probably meant.

Used for recipes, pipelines and config files alike. Reading a file named by the user is the only I/O in core.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from espalier.core.errors import InvalidInput, NotFound, did_you_mean

Kind = TypeVar("Kind", bound=BaseModel)
Location = tuple[int | str, ...]


def load_recipe(path: Path, kind: type[Kind], *, mistaken: Callable[[Any], str] | None = None) -> Kind:
    """Load `path` as `kind`; raises InvalidInput("recipe.yaml:14:7: train.lr: ...") or NotFound.

    mistaken: says of the file's data what else it is, if that is another kind of recipe; then nothing more is checked.
    """
    data = read_yaml(path)
    if mistaken and (said := mistaken(data)):
        raise InvalidInput("a recipe of another kind", where=str(path), hint=said)
    return check_recipe(data, kind, path)


def read_yaml(path: Path) -> Any:
    """The file as nested mappings and lists that remember their lines; an empty file is an empty mapping."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise NotFound(f"no file {path}", hint="check the path, or `espalier init` for an example") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InvalidInput(f"{path} is not a text file: {error}", hint="a recipe is YAML in UTF-8") from None
    try:
        return YAML(typ="rt").load(text) or {}
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = (error.problem or "not YAML").strip().split("\n")[0]
        raise InvalidInput(f"not YAML: {problem}", where=where, hint="check indentation and colons there") from None
    except YAMLError as error:
        raise InvalidInput(f"not YAML: {error}", where=str(path)) from None


def check_recipe(data: Any, kind: type[Kind], path: Path) -> Kind:
    """Validate what `read_yaml` gave; every error is listed, the first one's place leads."""
    try:
        return kind.model_validate(to_plain(data))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        first = problems[0]
        line, column = position_of(data, first["loc"])
        more = [f"{path}:{':'.join(map(str, position_of(data, p['loc'])))}: {describe(p)}" for p in problems[1:6]]
        raise InvalidInput(
            "\n".join([describe(first), *more]), where=f"{path}:{line}:{column}", hint=hint_for(kind, first)
        ) from None


def overlay(data: Any, assignments: Iterable[str]) -> Any:
    """What `read_yaml` gave with `FIELD.FIELD=VALUE` laid over it; a value is read as YAML.

    Raises InvalidInput for an assignment without `=`, or into something that holds no fields.
    """
    from ruamel.yaml import YAML

    for given in assignments:
        path, equals, text = given.partition("=")
        if not equals:
            raise InvalidInput(f"{given!r} assigns nothing", hint="write FIELD=VALUE, e.g. lora.rank=8")
        *above, last = path.split(".")
        node = data
        for name in above:
            node = node.setdefault(name, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise InvalidInput(f"{path}: {above[-1] if above else 'the file'} holds no fields", hint="check its name")
        node[last] = YAML(typ="safe").load(text)
    return data


def to_plain(value: Any) -> Any:
    """ruamel's containers and scalars as plain dicts, lists, strings and numbers."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    if isinstance(value, bool):
        return bool(value)
    for plain in (str, int, float):
        if isinstance(value, plain):
            return plain(value)
    return value


def position_of(data: Any, location: Location) -> tuple[int, int]:
    """1-based (line, column) of the deepest part of `location` that the file holds.

    pydantic puts the kind of a tagged mapping (`step: redact`) into the location; the file has no such level.
    """
    line, column = 0, 0
    node = data
    for part in location:
        marks = getattr(node, "lc", None)
        if isinstance(node, dict) and part not in node and part in node.values():
            continue
        try:
            if isinstance(node, dict):
                line, column = marks.key(part) if marks else (line, column)
            elif isinstance(node, list) and isinstance(part, int):
                line, column = marks.item(part) if marks else (line, column)
            else:
                break
            node = node[part]
        except (KeyError, IndexError, TypeError):
            break
    return line + 1, column + 1


def describe(problem: ErrorDetails) -> str:
    """One sentence for one pydantic error."""
    field = ".".join(map(str, problem["loc"])) or "the file"
    context = problem.get("ctx", {})
    chooser = str(context.get("discriminator", "")).strip("'")
    if problem["type"] == "union_tag_invalid":
        return f"{field}: there is no {chooser} {context['tag']!r}"
    if problem["type"] == "union_tag_not_found":
        return f"{field}.{chooser}: missing"
    if problem["type"] == "extra_forbidden":
        return f"{field}: unknown key"
    if problem["type"] == "missing":
        return f"{field}: missing"
    return f"{field}: {problem['msg'][:1].lower()}{problem['msg'][1:]} (got {problem['input']!r:.80})"


def hint_for(kind: type[BaseModel], problem: ErrorDetails) -> str:
    """What to do about an unknown key or kind: the nearest known one, looked up in the model it stands in."""
    if problem["type"] == "union_tag_invalid":
        context = problem["ctx"]
        return did_you_mean(str(context["tag"]), str(context["expected_tags"]).replace("'", "").split(", "))
    if problem["type"] != "extra_forbidden":
        return ""
    for model in _models_at(kind, problem["loc"][:-1]):
        names = [field.alias or name for name, field in model.model_fields.items()]
        return did_you_mean(str(problem["loc"][-1]), names)
    return ""


def _models_at(kind: Any, location: Location) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not location:
            return [kind]
        written = {field.alias or name: field for name, field in kind.model_fields.items()}
        field = written.get(str(location[0]))
        if field is not None:
            return _models_at(field.annotation, location[1:])
        return [kind]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        tagged = [arg for arg in args if location and _is_tagged(arg, location[0])]
        if tagged:
            return _models_at(tagged[0], location[1:])
        return [model for arg in args for model in _models_at(arg, location)]
    if origin is not None and args and location:  # dict[str, X], list[X], tuple[X, ...]
        inner = args[1] if issubclass(origin, dict) else args[0]
        return _models_at(inner, location[1:])
    return []


def _is_tagged(kind: Any, tag: int | str) -> bool:
    """True when one of the model's fields can be nothing but `tag`: it is chosen by that word."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return False
    return any(typing.get_args(field.annotation) == (tag,) for field in kind.model_fields.values())
