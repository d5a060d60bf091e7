"""Tools and answer formats as clients ask for them <-> `Tool`, `tool_choice` and `ResponseFormat`.

`tools`, `tool_choice` and `response_format` are OpenAI's; `structured_outputs` is vLLM's extra for what OpenAI has no
word for (https://docs.vllm.ai/en/latest/features/structured_outputs.html). Compiles no schema: that is the engine's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.types import ResponseFormat, Tool
from espalier.wire.openai.turns import Wire

_MODES = ("none", "auto", "required")


class Function(Wire):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OfferedTool(Wire):
    """One of `tools`."""

    type: Literal["function"]
    function: Function


class Named(Wire):
    """The name in a `tool_choice` of one function."""

    name: str


class NamedChoice(Wire):
    """A `tool_choice` of one function."""

    type: Literal["function"]
    function: Named


class _Schema(Wire):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class Format(Wire):
    """`response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class Structure(Wire):
    """`structured_outputs`: exactly one of these."""

    json_: Annotated[str | dict[str, Any] | None, Field(alias="json")] = None
    json_object: Literal[True] | None = None
    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None = None
    grammar: Annotated[str, Field(min_length=1)] | None = None


def decode_tools(
    offered: Sequence[OfferedTool] | None, choice: str | NamedChoice | None
) -> tuple[tuple[Tool, ...], str]:
    """(tools, tool_choice). Raises InvalidInput for a choice of what was not offered, and a name given twice."""
    tools: list[Tool] = []
    for number, each in enumerate(offered or ()):
        function, where = each.function, f"tools[{number}].function.name"
        if function.name in _MODES:
            raise InvalidInput(f"{where}: a tool cannot be called {function.name}", where=where, hint="rename it")
        if function.name in {tool.name for tool in tools}:
            raise InvalidInput(f"{where}: two tools are called {function.name}", where=where, hint="rename one")
        tools.append(
            Tool(
                name=function.name,
                description=function.description or "",
                parameters=function.parameters or {},
                strict=bool(function.strict),
            )
        )
    name = choice.function.name if isinstance(choice, NamedChoice) else choice or "auto"
    known = [tool.name for tool in tools]
    if isinstance(choice, NamedChoice) and name not in known:
        raise InvalidInput(
            f"tool_choice names {name!r:.80}, which is not among `tools`",
            where="tool_choice",
            hint=did_you_mean(name, known),
        )
    if name == "required" and not tools:
        raise InvalidInput("tool_choice is required, and there are no tools", where="tool_choice", hint="send `tools`")
    return tuple(tools), name


def encode_tools(tools: Sequence[Tool], choice: str) -> dict[str, Any]:
    """`tools` and `tool_choice`, empty where none are offered."""
    if not tools:
        return {"tool_choice": choice} if choice == "none" else {}
    offered = []
    for tool in tools:
        function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters}
        function |= {"description": tool.description} if tool.description else {}
        function |= {"strict": True} if tool.strict else {}
        offered.append({"type": "function", "function": function})
    named = {"type": "function", "function": {"name": choice}}
    return {"tools": offered, "tool_choice": choice if choice in _MODES else named}


def decode_format(format: Format | None, structure: Structure | None) -> ResponseFormat | None:
    """What the answer must look like; None for anything. Raises InvalidInput for two forms at once."""
    asked = _read_format(format) if format else None
    if structure is None:
        return asked
    if asked is not None:
        raise InvalidInput("response_format and structured_outputs both say a form", where="structured_outputs")
    said = structure.model_dump(by_alias=True, exclude_none=True)
    if len(said) != 1:
        known = ", ".join(field.alias or name for name, field in Structure.model_fields.items())
        raise InvalidInput("structured_outputs takes exactly one form", where="structured_outputs", hint=f"of {known}")
    return _read_structure(*said.popitem())


def encode_format(format: ResponseFormat | None) -> dict[str, Any]:
    """The parameter that asks for `format`, empty for anything. Raises InvalidInput for a schema that is no JSON."""
    if format is None:
        return {}
    if format.kind == "json_object":
        return {"response_format": {"type": "json_object"}}
    if format.kind == "json_schema":
        try:
            schema = {"name": "answer", "schema": json.loads(format.text), "strict": True}
        except (ValueError, RecursionError):
            raise InvalidInput("response_format: the schema is not JSON", where="response_format") from None
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"structured_outputs": {format.kind: format.text}}


def _read_format(format: Format) -> ResponseFormat | None:
    if format.type == "text":
        return None
    if format.type == "json_object":
        return ResponseFormat(kind="json_object")
    if format.json_schema is None:
        raise InvalidInput("response_format.json_schema: is missing", where="response_format.json_schema")
    return ResponseFormat(kind="json_schema", text=_write(format.json_schema.schema_))


def _read_structure(kind: str, value: Any) -> ResponseFormat:
    match kind:
        case "json":
            return ResponseFormat(kind="json_schema", text=value if isinstance(value, str) else _write(value))
        case "choice":
            # Lark's strings are JSON's as far as escapes go.
            return ResponseFormat(kind="grammar", text="start: " + " | ".join(map(_write, value)))
        case "regex":
            return ResponseFormat(kind="regex", text=value)
        case "grammar":
            return ResponseFormat(kind="grammar", text=value)
        case _:
            return ResponseFormat(kind="json_object")


def _write(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
