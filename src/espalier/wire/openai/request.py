"""A chat.completions request: JSON bytes -> `ChatCall`, and back.

Three kinds of parameters: those we honour (fields of `ChatCall`); those that cannot change the answer, which are
read and left (`IGNORED`); and those that would change it, which are refused unless they hold their neutral value
(`NEUTRAL`): a client that asks for speech and silently gets prose is worse off than one that is told. Unknown names
are refused with the nearest one. `EXTRAS` are honoured besides, under the names vLLM gave them.

Does not know: which models exist, what a default is (None means "as the deployment says"), or what anything costs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.faults import list_faults
from espalier.core.types import Message, ResponseFormat, SamplingSpec, Spec, Tool
from espalier.wire.jsonbody import read_json
from espalier.wire.openai.tools import (
    Format,
    NamedChoice,
    OfferedTool,
    Structure,
    decode_format,
    decode_tools,
    encode_format,
    encode_tools,
)
from espalier.wire.openai.turns import Turn, Wire, decode_turns, encode_turn

IGNORED = frozenset(
    {
        "store", "service_tier", "prompt_cache_retention", "prompt_cache_options",
    }
)  # fmt: skip

# What each refused parameter may hold, because it asks for nothing; null is neutral everywhere.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
}

# Of vLLM's (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html), sent through `extra_body`.
EXTRAS = frozenset({"top_k", "min_p", "repetition_penalty", "ignore_eos", "structured_outputs"})

MOST_ANSWERS, MOST_LOGPROBS, MOST_TOOLS, MOST_STOPS = 128, 20, 128, 4  # OpenAI's own bounds
_MOST_BIASES = 1024


class ChatCall(Spec):
    """What a client asked for, in our words. None = not said: the deployment decides."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] | None = None
    logprobs: int | None = None
    n: int | None = None
    ignore_end: bool | None = None
    format: ResponseFormat | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"  # none, auto, required, or the one tool's name
    parallel_calls: bool = True
    stream: bool = False
    include_usage: bool = False
    metadata: dict[str, str] = {}
    user: str = ""  # whoever stands behind the client; one user keeps one variant of a deployment

    def sampling(self, defaults: SamplingSpec) -> SamplingSpec:
        """How to sample: what the client said, else what the deployment says."""
        said = {name: getattr(self, name) for name in _SAMPLING}
        chosen = {name: value for name, value in said.items() if value is not None}
        return defaults.model_copy(update={**chosen, **({"stop": self.stop} if self.stop else {})})


_SAMPLING = tuple(name for name in SamplingSpec.model_fields if name in ChatCall.model_fields and name != "stop")


class _StreamOptions(Wire):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def _check_metadata(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in pairs.items()):
        raise ValueError("at most 16 pairs, keys of 64 and values of 512 characters")
    return pairs


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _check_biases(biases: dict[str, float]) -> dict[str, float]:
    if not all(name.isascii() and name.isdigit() and len(name) < 10 for name in biases):
        raise ValueError("its keys are token ids, such as 50256")
    return biases


_Penalty = Annotated[float, Field(ge=-2, le=2)]


class _Request(Wire):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[Turn], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    logit_bias: (
        Annotated[
            dict[str, Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=_MOST_BIASES),
            AfterValidator(_check_biases),
        ]
        | None
    ) = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[
        Annotated[list[Annotated[str, Field(min_length=1, max_length=1024)]], Field(max_length=MOST_STOPS)] | None,
        BeforeValidator(_as_list),
    ] = None
    ignore_eos: bool | None = None
    response_format: Format | None = None
    structured_outputs: Structure | None = None
    tools: Annotated[list[OfferedTool], Field(max_length=MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    metadata: Annotated[dict[str, str], AfterValidator(_check_metadata)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None


_KNOWN = frozenset(_Request.model_fields) | IGNORED | frozenset(NEUTRAL)


def decode_chat(body: bytes) -> ChatCall:
    """The request in `body`. Raises InvalidInput whose `where` is the parameter at fault (`messages[0].content`)."""
    fields = read_json(body, hint="send a JSON object with `model` and `messages`")
    if not isinstance(fields, dict):
        raise InvalidInput("the body is not a JSON object", hint="send a JSON object with `model` and `messages`")
    _refuse_what_would_change_the_answer(fields)
    try:
        request = _Request.model_validate({name: fields[name] for name in fields if name in _Request.model_fields})
    except ValidationError as error:
        raise _explain(error, fields) from None
    try:
        return _to_call(request)
    except RecursionError:  # a schema that could just be read, and cannot be written again
        raise InvalidInput("the body is nested too deeply", hint="send a flatter schema") from None


def encode_chat(call: ChatCall) -> dict[str, Any]:
    """The JSON object that asks for `call`; `decode_chat` is its inverse."""
    biases = None if call.logit_bias is None else {str(id): bias for id, bias in call.logit_bias}
    body: dict[str, Any] = {
        "model": call.model,
        "messages": [encode_turn(message) for message in call.messages],
        "max_completion_tokens": call.max_tokens,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "top_k": call.top_k,
        "min_p": call.min_p,
        "presence_penalty": call.presence_penalty,
        "frequency_penalty": call.frequency_penalty,
        "repetition_penalty": call.repetition_penalty,
        "logit_bias": biases,
        "logprobs": True if call.logprobs is not None else None,
        "top_logprobs": call.logprobs or None,
        "n": call.n,
        "seed": call.seed,
        "stop": list(call.stop) or None,
        "ignore_eos": call.ignore_end,
        **encode_format(call.format),
        **encode_tools(call.tools, call.tool_choice),
        "parallel_tool_calls": None if call.parallel_calls else False,
        "metadata": call.metadata or None,
        "safety_identifier": call.user or None,
        "stream": call.stream or None,
        "stream_options": {"include_usage": True} if call.include_usage else None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _refuse_what_would_change_the_answer(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if name not in _KNOWN:
            raise InvalidInput(f"unknown parameter {name!r}"[:200], where=name[:64], hint=did_you_mean(name, _KNOWN))
        if name in NEUTRAL and value is not None and value not in NEUTRAL[name]:
            raise InvalidInput(
                f"{name} is not supported here, and leaving it out would change the answer",
                where=name,
                hint=f"send the request without `{name}`",
            )


def _to_call(request: _Request) -> ChatCall:
    options = request.stream_options
    if options is not None and not request.stream:
        raise InvalidInput("stream_options goes with stream=true only", where="stream_options")
    if None not in (request.max_tokens, request.max_completion_tokens):
        raise InvalidInput("max_tokens and max_completion_tokens are one setting", where="max_tokens", hint="send one")
    if request.top_logprobs and not request.logprobs:
        raise InvalidInput("top_logprobs goes with logprobs=true only", where="top_logprobs")
    tools, choice = decode_tools(request.tools, request.tool_choice)
    biases = request.logit_bias
    return ChatCall(
        model=request.model,
        messages=decode_turns(request.messages),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=None if request.top_k is None else max(request.top_k, 0),  # -1 is vLLM's word for all
        min_p=request.min_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        logit_bias=tuple((int(id), bias) for id, bias in biases.items()) if biases else None,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        n=request.n,
        seed=request.seed,
        stop=tuple(request.stop or ()),
        ignore_end=request.ignore_eos,
        format=decode_format(request.response_format, request.structured_outputs),
        tools=tools,
        tool_choice=choice,
        parallel_calls=request.parallel_tool_calls is not False,
        stream=bool(request.stream),
        include_usage=bool(options and options.include_usage),
        metadata=request.metadata or {},
        user=request.safety_identifier or request.user or request.prompt_cache_key or "",
    )


_IN_SHORT = {"missing": "is missing", "extra_forbidden": "is not known or not supported here"}


def _explain(error: ValidationError, fields: dict[str, Any]) -> InvalidInput:
    """The first fault, its place in OpenAI's words (`messages[0].content`)."""
    fault = list_faults(error, fields)[0]
    where = ""
    for part in fault.place:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else part
    said = {"missing": "is missing", "extra_forbidden": "is not known or not supported here"}.get(
        fault.type, fault.said
    )
    if fault.type == "literal_error" and "content" in fault.place:
        said = "only text parts are supported here"
    return InvalidInput(f"{where}: {said}"[:300], where=where[:128])
