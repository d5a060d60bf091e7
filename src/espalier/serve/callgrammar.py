"""Calls of tools as a grammar, in each family's way of writing them: for calls that must come, or must be well formed.

Written in llguidance's dialect of Lark (https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from espalier.core.types import Tool
from espalier.serve.grammar import close_spaces
from espalier.serve.toolcalls import MARKS
from espalier.tokens.chat import CallFormat

_ANYTHING = {"type": "object"}


def require_calls(format: CallFormat, tools: Sequence[Tool], special: Mapping[str, int], *, several: bool) -> str:
    """An answer of one call or, if `several`, more, and nothing else. `special`: ids of marks that are tokens."""
    rules, one = _write_tools(format, tools, special, all_strict=True)
    mark = _mark(MARKS[format][0], special)
    match format:
        case "hermes":
            call, rest = f'{mark} "\\n" {one} "\\n" {_mark(MARKS[format][1], special)}', '("\\n" call)*'
            start = f"call {rest if several else ''}"
        case "llama":
            call, start = one, "call"  # its template takes one call an answer
        case "mistral":
            call, rest = one, '(", " call)*'
            start = f'{mark} "[" call {rest if several else ""} "]"'
        case "mistral-args":
            call, start = f"{mark} {one}", "call+" if several else "call"
    return "\n".join(["%llguidance {}", f"start: {start}", f"call: {call}", *rules])


def allow_calls(format: CallFormat, tools: Sequence[Tool], special: Mapping[str, int], *, several: bool) -> str:
    """An answer of any words in which each call, once begun, is one of a tool that is offered, its schema being kept
    where the tool is strict."""
    rules, one = _write_tools(format, tools, special, all_strict=False)
    if format == "llama":  # what begins as JSON is a call
        return "\n".join(["%llguidance {}", f"start: {one} | WORDS", r"WORDS: /([^{\s<]|\s+[^{\s<])(.|\n)*/", *rules])
    mark = MARKS[format][0]
    opening = _mark(mark, special)
    begin = f"WORDS {opening}" if mark in special else "opening"
    lazy = [] if mark in special else [f"opening[lazy]: /(.|\\n)*{mark.replace('[', chr(92) + '[')}/"]
    match format:
        case "hermes":
            call = f'{begin} "\\n" {one} "\\n" {_mark(MARKS[format][1], special)}'
        case "mistral":
            call = f'{begin} " "? "[" {one} {f"""(", " {one})*""" if several else ""} "]"'
        case _:
            call = f"{begin} {one} " + (f"({opening} {one})*" if several else "")
    # After a Mistral's calls nothing more is said.
    start = f"(call){'*' if several else '?'} WORDS" if format == "hermes" else "WORDS | call"
    return "\n".join(["%llguidance {}", f"start: {start}", f"call: {call}", r"WORDS: /(.|\n)*/", *lazy, *rules])


def _write_tools(
    format: CallFormat, tools: Sequence[Tool], special: Mapping[str, int], *, all_strict: bool
) -> tuple[list[str], str]:
    """(a rule for each tool's arguments, what one call is)."""
    rules, ways = [], []
    for number, tool in enumerate(tools):
        schema = {**tool.parameters, "type": "object"} if all_strict or tool.strict else _ANYTHING
        rules.append(f"arguments_{number}: %json {json.dumps(close_spaces(schema))}")
        name = json.dumps(tool.name)
        if format == "mistral-args":
            ways.append(f"{name} {_mark('[ARGS]', special)} arguments_{number}")
        else:
            word = "parameters" if format == "llama" else "arguments"
            head = json.dumps(f'{{"name": {name}, "{word}": ')
            ways.append(f'{head} arguments_{number} "}}"')
    return rules, "(" + " | ".join(ways) + ")"


def _mark(mark: str, special: Mapping[str, int]) -> str:
    """A mark as a special token by its id, or as the text it is."""
    return f"<[{special[mark]}]>" if mark in special else json.dumps(mark)
