"""A request's fields as click parameters: names, types, choices, defaults and help all come from the pydantic model.

    bool            --x/--no-x                 list, tuple     the flag, repeated
    Literal, Enum   one of its values          dict            --x key=value, repeated
    a nested model, or anything else           JSON, or @FILE holding it

What was not given stays out of the fields, so defaults are the model's alone. Knows no operation.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from espalier.core.errors import InvalidInput

_SCALARS: dict[Any, click.ParamType[Any]] = {
    str: click.STRING,
    int: click.INT,
    float: click.FLOAT,
    Path: click.Path(path_type=Path),
}


class JsonText(click.ParamType[Any]):
    """JSON on the command line, or `@file` holding it."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            text = Path(value[1:]).read_text("utf-8") if value.startswith("@") else value
            return json.loads(text)
        except OSError as error:
            self.fail(f"{value[1:]}: {error.strerror}", param, ctx)
        except json.JSONDecodeError as error:
            self.fail(f"not JSON: {error}", param, ctx)


class KeyValue(click.ParamType[Any]):
    """`key=value`."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        key, equals, rest = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not key=value", param, ctx)
        return key, rest


def parameters_of(request: type[BaseModel], positional: Iterable[str]) -> list[click.Parameter]:
    """Arguments in the order declared, then one option per other field."""
    order = tuple(positional)
    arguments = [_argument(name, request.model_fields[name]) for name in order]
    options = [_option(name, field) for name, field in request.model_fields.items() if name not in order]
    return [*arguments, *options]


def fields_of(request: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    """The request's fields that the command line gave. Raises InvalidInput for a key given twice."""
    fields: dict[str, Any] = {}
    for name, field in request.model_fields.items():
        value = given.get(name)
        if value is None or (isinstance(value, tuple) and not value):
            continue
        if _is_mapping(field):
            _check_once(name, [key for key, _ in value])
            fields[name] = dict(value)
        else:
            fields[name] = list(value) if isinstance(value, tuple) else value
    return fields


def _check_once(name: str, keys: list[str]) -> None:
    """A key given twice would lose one of its values without a word."""
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise InvalidInput(f"--{name.replace('_', '-')} says twice what {twice} is", hint="say it once")


def _argument(name: str, field: FieldInfo) -> click.Argument:
    kind, many, _ = _read(field.annotation)
    spelled = name.upper().replace("_", "-")
    metavar = spelled if field.is_required() else f"[{spelled}]"
    nargs = -1 if many else 1
    text = f"{_help(field)}  [{'|'.join(map(str, kind.choices))}]" if isinstance(kind, click.Choice) else _help(field)
    return click.Argument([name], type=kind, required=field.is_required(), nargs=nargs, metavar=metavar, help=text)


def _option(name: str, field: FieldInfo) -> click.Option:
    kind, many, flag = _read(field.annotation)
    spelled = (field.alias or name).replace("_", "-")
    if flag:
        return click.Option(
            [f"--{spelled}/--no-{spelled}", name], default=None, help=_help(field), required=field.is_required()
        )
    return click.Option(
        [f"--{spelled}", name], type=kind, multiple=many, default=None, help=_help(field), required=field.is_required()
    )


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        return text
    default = field.get_default(call_default_factory=True)
    if default in (None, "", (), [], {}) or isinstance(default, BaseModel):
        return text
    shown = {True: "yes", False: "no"}.get(default, default) if isinstance(default, bool) else default
    if isinstance(default, list | tuple):
        shown = ", ".join(map(str, default))
    return f"{text}  [default: {shown}]".strip()


def _read(annotation: Any) -> tuple[click.ParamType[Any], bool, bool]:
    """(click's type, whether it repeats, whether it is a flag) of a field's annotation."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        return _read(inner[0]) if len(inner) == 1 else (_scalar_union(inner), False, False)
    if origin is typing.Annotated:
        return _read(args[0])
    if origin is typing.Literal:
        return click.Choice([str(arg) for arg in args]), False, False
    if origin in (list, tuple, set, frozenset) and args:
        return _read(args[0])[0], True, False
    if origin is dict:
        return (KeyValue(), True, False) if args[1] in (str, int, float, Any) else (JsonText(), False, False)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return click.Choice([str(member.value) for member in annotation]), False, False
    if annotation is bool:
        return click.BOOL, False, True
    return _SCALARS.get(annotation, JsonText()), False, False


def _scalar_union(kinds: list[Any]) -> click.ParamType[Any]:
    return click.STRING if str in kinds else JsonText()


def _is_mapping(field: FieldInfo) -> bool:
    return isinstance(_read(field.annotation)[0], KeyValue)
