"""Messages -> text by the model's own Jinja chat template: the one function training, evaluation and serving share.

Knows no tokenizer and no torch. The environment is the one `transformers` renders in (sandboxed, trimmed blocks, the
`generation` tag, `raise_exception`, `strftime_now`, a `tojson` that keeps non-ASCII text), so a template of any
published model renders the same here. One thing more: where a template refuses a system message or leaves it out, its
words are put before the user's first, in training and serving alike.

Tools reach a template as `transformers` hands them over: `tools` (None where there are none), an assistant's
`tool_calls` with their arguments as objects, and messages of the role `tool`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from espalier.core.errors import InvalidInput
from espalier.core.types import Message, Tool, ToolCall

CHATML = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CallFormat = Literal["hermes", "llama", "mistral", "mistral-args"]

_MARK = "espalier-mark"  # stands for somebody's words where it is asked what a template does with them


def render_chat(
    template: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = False,
    special_tokens: dict[str, str] | None = None,
    tools: Sequence[Tool] = (),
    on: date | None = None,
) -> str:
    """The conversation as the model reads it. `special_tokens` are the names a template may use (bos_token, eos_token).

    `tools` are what the model may call. `on` is the day a template writes that tells the model the date; None: today.
    Raises InvalidInput when the template is no Jinja, refuses the messages, or would leave tools or their calls out.
    """
    names = special_tokens or {}
    _check_tools(template, messages, tools, names)
    if len(messages) > 1 and messages[0].role == "system" and messages[1].role == "user":
        messages = messages if takes_system(template, **names) else _fold(messages)
    given: dict[str, Any] = {
        "messages": [_row_of(message) for message in messages],
        "tools": [_describe(tool) for tool in tools] or None,
        "add_generation_prompt": add_generation_prompt,
        **({} if on is None else {"strftime_now": on.strftime}),
        **names,
    }
    try:
        return _compiled(template).render(given)
    except jinja2.TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        raise InvalidInput(
            f"the model's chat template refuses this conversation: {error}",
            hint=f"its turns are: {roles}; check their roles and order",
        ) from error
    except RecursionError:
        raise InvalidInput("a tool, or a call of one, is nested too deeply", hint="send a flatter one") from None


@lru_cache(maxsize=32)
def takes_system(template: str, **special_tokens: str) -> bool:
    """Whether a system message's words come out of the template; it may refuse them or leave them out."""
    system, user = {"role": "system", "content": _MARK}, {"role": "user", "content": "x"}
    try:
        _compiled(template).render(messages=[user], add_generation_prompt=True, **special_tokens)
    except jinja2.TemplateError:
        return True  # it refuses more than that, and is to say so itself
    try:
        return _MARK in _compiled(template).render(
            messages=[system, user], add_generation_prompt=True, **special_tokens
        )
    except jinja2.TemplateError:
        return False


@lru_cache(maxsize=32)
def answer_tail(template: str, **special_tokens: str) -> str:
    """What the template writes after an answer's words at a conversation's end; empty when it takes no plain answer."""
    rows = [{"role": "user", "content": "x"}, {"role": "assistant", "content": _MARK}]
    try:
        text = _compiled(template).render(messages=rows, add_generation_prompt=False, **special_tokens)
    except jinja2.TemplateError:
        return ""
    return text.rpartition(_MARK)[2] if _MARK in text else ""


@lru_cache(maxsize=32)
def call_format(template: str, **special_tokens: str) -> CallFormat | None:
    """How a model with this template writes calls of tools; None where the template knows neither tools nor calls.

    hermes: `<tool_call>` JSON `</tool_call>` (Qwen, Hermes); llama: the answer is JSON with `parameters` (Llama 3.1);
    mistral: `[TOOL_CALLS]` and a JSON array; mistral-args: `[TOOL_CALLS]` name `[ARGS]` JSON. Found by rendering one.
    """
    tool = Tool(name=_MARK, description="x", parameters={"type": "object", "properties": {}})
    call = ToolCall("a1b2c3d4e", _MARK, "{}")  # Mistral's templates want ids of nine letters and digits
    asked = Message("user", "x")
    given = {"tools": [_describe(tool)], **special_tokens}
    try:
        offer = _compiled(template).render(messages=[_row_of(asked)], add_generation_prompt=True, **given)
        rows = [_row_of(asked), _row_of(Message("assistant", "", tool_calls=(call,)))]
        text = _compiled(template).render(messages=rows, **given).removeprefix(offer)
    except (jinja2.TemplateError, TypeError):  # TypeError: it does arithmetic with what it has no tools for
        return None
    head, _, tail = text.rpartition(_MARK)
    if _MARK not in offer or _MARK not in text:
        return None
    if "[TOOL_CALLS]" in head:
        return "mistral-args" if head.endswith("[TOOL_CALLS]") else "mistral"
    if head.rpartition("<tool_call>")[2].lstrip().startswith("{"):
        return "hermes"
    return "llama" if '"parameters"' in tail else None


def template_digest(template: str) -> str:
    """sha256 of the template's text: it goes beside every adapter, and a mismatch refuses to serve."""
    return sha256(template.encode()).hexdigest()


def _fold(messages: Sequence[Message]) -> list[Message]:
    """The first two messages as one of the user, the system's words before a blank line."""
    system, user = messages[:2]
    return [replace(user, content=f"{system.content}\n\n{user.content}"), *messages[2:]]


def _check_tools(template: str, messages: Sequence[Message], tools: Sequence[Tool], names: dict[str, str]) -> None:
    calling = next((i for i, message in enumerate(messages) if message.tool_calls or message.role == "tool"), None)
    if (not tools and calling is None) or call_format(template, **names) is not None:
        return
    raise InvalidInput(
        "this model's chat template knows no tools" if tools else "this model's chat template knows no calls of tools",
        where="tools" if tools else f"messages[{calling}]",
        hint="ask a model whose family has them, such as Qwen, Llama 3.1 or Mistral, or ask for JSON by a schema",
    )


def _row_of(message: Message) -> dict[str, Any]:
    """A message as templates know it; a call's arguments are an object where they are one."""
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        functions = [
            (call.id, {"name": call.name, "arguments": read_arguments(call.arguments)}) for call in message.tool_calls
        ]
        row["tool_calls"] = [{"id": id, "type": "function", "function": function} for id, function in functions]
    if message.role == "tool":
        row["tool_call_id"] = message.tool_call_id
    return row


def read_arguments(arguments: str) -> Any:
    """A call's arguments as templates are given them: an object where they are one that can be written again."""
    try:
        found = json.loads(arguments)
        _to_json(found).encode()  # half a surrogate pair, which JSON can escape, no text can hold
    except (ValueError, RecursionError):
        return arguments
    return found if isinstance(found, dict) else arguments


def _describe(tool: Tool) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": described}


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant wrote; rendering keeps the text only."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


@lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)
