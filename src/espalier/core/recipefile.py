"""A YAML file as a pydantic type, with errors that name file:line:column, the field, and what was probably meant.

Used for recipes, pipelines and config files alike. Reading a file named by the user is the only I/O in core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.faults import Location, list_faults

Kind = TypeVar("Kind", bound=BaseModel)
_ROOT = "the file"


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
    plain = to_plain(data)
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        first, *others = list_faults(error, plain, kind)
        line, column = position_of(data, first.place)
        more = [
            f"{path}:{':'.join(map(str, position_of(data, fault.place)))}: {fault.tell(_ROOT)}" for fault in others[:5]
        ]
        told = "\n".join([first.tell(_ROOT), *more])
        raise InvalidInput(told, where=f"{path}:{line}:{column}", hint=first.hint) from None


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

    The kind of a tagged mapping (`step: redact`) stands in the location, and the file has no such level.
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
