"""Bedrock's Converse: a request body -> `ChatCall`, a `Completion` -> a response body.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html. A body is first put in OpenAI's
words, by the mapping that Bedrock's own guide gives for OpenAI models (maxTokens is max_completion_tokens, and so on),
so that both shapes are checked by one decoder. Text and tools only.
"""

from __future__ import annotations

import json
from typing import Any

from espalier.core.errors import InvalidInput
from espalier.core.types import Completion
from espalier.wire.openai.request import ChatCall, decode_chat

_SETTINGS = {
    "maxTokens": "max_completion_tokens", "temperature": "temperature", "topP": "top_p", "stopSequences": "stop",
}  # fmt: skip
_PARTS = {"messages", "system", "inferenceConfig", "toolConfig", "additionalModelRequestFields", "requestMetadata"}
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def decode_converse(body: dict[str, Any], model: str) -> ChatCall:
    """Raises InvalidInput whose `where` is the part at fault, in Converse's words or, within a message, in OpenAI's."""
    for name in body:
        if name not in _PARTS:
            raise InvalidInput(f"{name!r:.80} is not supported here", where=name[:64], hint=f"send {sorted(_PARTS)}")
    asked: dict[str, Any] = {"model": model, "messages": _system(body.get("system"))}
    for turn in _list(body, "messages"):
        asked["messages"] += _turns(_object(turn, "messages"))
    for name, value in _object(body.get("inferenceConfig") or {}, "inferenceConfig").items():
        if name not in _SETTINGS:
            raise InvalidInput(f"{name!r:.80} is not known", where="inferenceConfig", hint=f"{sorted(_SETTINGS)}")
        asked[_SETTINGS[name]] = value
    if body.get("toolConfig"):
        asked.update(_tools(_object(body["toolConfig"], "toolConfig")))
    asked.update(_object(body.get("additionalModelRequestFields") or {}, "additionalModelRequestFields"))
    if asked.get("stream"):
        raise InvalidInput("a batch does not stream", where="additionalModelRequestFields")
    call = decode_chat(json.dumps(asked).encode())
    if (call.n or 1) > 1 or call.logprobs is not None:
        wrong = "Converse's answer has room for one answer, and none for log-probabilities"
        raise InvalidInput(wrong, where="additionalModelRequestFields", hint="leave n and logprobs out")
    return call.model_copy(update={"model": model})


def encode_converse(completion: Completion) -> dict[str, Any]:
    """The response body. The answer's latency is left to whoever measures it: zero here where it is not known."""
    said = completion.generation
    content: list[dict[str, Any]] = [{"text": said.text}] if said.text or not said.tool_calls else []
    content += [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": _read_arguments(call.arguments)}}
        for call in said.tool_calls
    ]
    usage = said.usage
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": _STOPS.get(said.finish_reason, "end_turn"),
        "usage": {
            "inputTokens": usage.prompt_tokens,
            "outputTokens": usage.completion_tokens,
            "totalTokens": usage.total_tokens,
        },
        "metrics": {"latencyMs": completion.latency_ms},
    }


def _system(blocks: Any) -> list[dict[str, Any]]:
    if blocks is None:
        return []
    if not isinstance(blocks, list):
        raise InvalidInput("system is not a list of text blocks", where="system")
    return [{"role": "system", "content": _text(block, "system")} for block in blocks]


def _turns(turn: dict[str, Any]) -> list[dict[str, Any]]:
    """A message; results of tools, which Converse puts in the user's, become messages of their own before it."""
    role, texts, calls, results = turn.get("role"), [], [], []
    if role not in ("user", "assistant"):
        raise InvalidInput(f"role is {role!r:.40}", where="messages", hint="user or assistant; `system` stands apart")
    for block in _list(turn, "content"):
        block = _object(block, "content")
        if "toolUse" in block:
            used = _object(block["toolUse"], "toolUse")
            function = {"name": used.get("name"), "arguments": json.dumps(used.get("input") or {})}
            calls.append({"id": used.get("toolUseId"), "type": "function", "function": function})
        elif "toolResult" in block:
            result = _object(block["toolResult"], "toolResult")
            said = "\n".join(_result(part) for part in _list(result, "content"))
            results.append({"role": "tool", "tool_call_id": result.get("toolUseId"), "content": said})
        else:
            texts.append({"type": "text", "text": _text(block, "messages")})
    turns = [*results]
    if texts or calls:
        content = texts[0]["text"] if len(texts) == 1 else texts or None
        turns.append({"role": role, "content": content, **({"tool_calls": calls} if calls else {})})
    return turns


def _tools(config: dict[str, Any]) -> dict[str, Any]:
    tools = []
    for tool in _list(config, "tools"):
        spec = _object(_object(tool, "tools").get("toolSpec"), "toolSpec")
        schema = _object(spec.get("inputSchema"), "inputSchema").get("json") or {}
        described = {"name": spec.get("name"), "description": spec.get("description") or "", "parameters": schema}
        tools.append({"type": "function", "function": described})
    choice = _object(config.get("toolChoice") or {"auto": {}}, "toolChoice")
    named = _object(choice.get("tool") or {}, "toolChoice").get("name")
    if named:
        return {"tools": tools, "tool_choice": {"type": "function", "function": {"name": named}}}
    return {"tools": tools, "tool_choice": "required" if "any" in choice else "auto"}


def _result(part: Any) -> str:
    block = _object(part, "toolResult")
    return json.dumps(block["json"]) if "json" in block else _text(block, "toolResult")


def _text(block: Any, where: str) -> str:
    text = block.get("text") if isinstance(block, dict) else None
    if not isinstance(text, str) or len(block) != 1:
        raise InvalidInput("only text blocks are supported here", where=where, hint='write {"text": "..."}')
    return text


def _list(holder: dict[str, Any], name: str) -> list[Any]:
    value = holder.get(name)
    if not isinstance(value, list) or not value:
        raise InvalidInput(f"{name} is not a list of at least one", where=name)
    return value


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is not a JSON object where one belongs", where=where)
    return value


def _read_arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"arguments": text}  # a model may write what is no JSON; Converse has no other place for it
