"""What a task takes from a row: a column, a path into it (`instances.0.output`), or a Jinja template over its columns.

Templates run sandboxed, see the row's columns only, and give the same text for the same row. They are the recipe's own
text: a service that knows a prompt catalogue writes the prompt's text into the recipe before it is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.data.formats.decoded import Row, read_optional

Read = Callable[[Row], str]


@dataclass(frozen=True, slots=True)
class Taken:
    """What a recipe takes from a row: the text to show, and of it what is the row's own (no template's words)."""

    read: Read
    own: Read


_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
for _random in ("lipsum", "random"):
    _environment.globals.pop(_random, None)
    _environment.filters.pop(_random, None)
_environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "sort_keys": True}
# Jinja's own filter escapes < > & for HTML, which a training text is not.
_environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True)
PROMPT = "prompt:"  # how a recipe names a prompt's template; whoever knows the catalogue puts the text in its place
_FILE_NODES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_MARKS = ("{{", "{%", "{#")


def is_template(text: str) -> bool:
    """Whether it is a template, not a column's name."""
    return any(mark in text for mark in _MARKS)


def prepare_field(text: str, where: str) -> Read:
    """A function from a row to the text that `text` names there; it may be empty.

    `where` names the recipe's key. Raises InvalidInput for a template that is none; the function raises InvalidInput
    for a row without the column, a column that holds a list or an object, or a template that fails on the row.
    """
    if text.startswith(PROMPT):
        raise InvalidInput(
            f"{text} is a prompt of a workspace's catalogue, which a recipe alone cannot read", where=where,
            hint="`espalier data build` puts its text here; elsewhere write the text itself",
        )  # fmt: skip
    return _prepare_template(text, where) if is_template(text) else _prepare_column(text)


def prepare_taken(text: str, where: str) -> Taken:
    """`prepare_required`, and the texts of the columns it reads: what tells one row from another."""
    read = prepare_required(text, where)
    if not is_template(text):
        return Taken(read, read)
    names = sorted(meta.find_undeclared_variables(_environment.parse(text)))

    def read_own(row: Row) -> str:
        values = (row.get(name) for name in names)
        return "\n\n".join(
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values
        )

    return Taken(read, read_own)


def prepare_required(text: str, where: str) -> Read:
    """`prepare_field`, where an empty text is an error too."""
    read = prepare_field(text, where)
    name = where.rsplit(".", 1)[-1] if is_template(text) else text

    def read_some(row: Row) -> str:
        found = read(row)
        if not found.strip():
            raise InvalidInput(f"`{name}` must be a text that is not empty", hint=f"fields here: {', '.join(row)}")
        return found

    return read_some


def find_value(row: Row, path: str) -> Any:
    """What stands at a column or a dotted path (numbers count into lists); None when nothing does."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _prepare_column(path: str) -> Read:
    def read(row: Row) -> str:
        return read_optional(row, path) if path in row else _read_path(row, path)

    return read


def _read_path(row: Row, path: str) -> str:
    head = path.split(".", 1)[0]
    if head not in row:
        raise InvalidInput(f"`{path}` must be a text that is not empty", hint=did_you_mean(head, row) or "an empty row")
    return read_optional({path: find_value(row, path)}, path)


def _prepare_template(text: str, where: str) -> Read:
    try:
        tree = _environment.parse(text)
        wanted = meta.find_undeclared_variables(tree)
        template = _environment.from_string(text)
    except TemplateSyntaxError as error:
        raise InvalidInput(
            str(error.message), where=f"{where}:{error.lineno}", hint="see https://jinja.palletsprojects.com/templates"
        ) from None
    for node in tree.find_all(_FILE_NODES):
        raise InvalidInput(
            f"{type(node).__name__.lower()} of another template",
            where=f"{where}:{node.lineno}",
            hint="a task's template stands alone: put the text in it",
        )

    def read(row: Row) -> str:
        try:
            return template.render(row)
        except UndefinedError as error:
            missing = sorted(wanted - set(row))
            if not missing:
                raise InvalidInput(f"{where}: {error.message}", hint="mend the template") from None
            raise InvalidInput(f"{where}: no column {missing[0]!r}", hint=did_you_mean(missing[0], row)) from None
        except (TemplateError, TypeError, ArithmeticError, ValueError) as error:
            raise InvalidInput(f"{where}: {error}", hint="mend the template") from None

    return read
