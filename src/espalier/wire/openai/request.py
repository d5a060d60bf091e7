"""A chat.completions request: JSON bytes -> `ChatCall`, and back.

Three kinds of parameters: those we honour (fields of `ChatCall`); those that cannot change the answer, which are
read and left (`IGNORED`); and those that would change it, which are refused unless they hold their neutral value
(`NEUTRAL`): a client that asks for tools and silently gets prose is worse off than one that is told. Unknown names
are refused with the nearest one.

Does not know: which models exist, what a default is (None means "as the deployment says"), or what anything costs.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.types import Message, SamplingSpec, Spec
from espalier.core.types.examples import Role

IGNORED = frozenset(
    {
        "store", "service_tier", "parallel_tool_calls",
        "prompt_cache_retention", "prompt_cache_options",
    }
)  # fmt: skip

# What each refused parameter may hold, because it asks for nothing; null is neutral everywhere.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_JOINT = "\n"  # between the text parts of one message, as vLLM and llama.cpp put it


class ChatCall(Spec):
    """What a client asked for, in our words. None = not said: the deployment decides."""

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    metadata: dict[str, str] = {}
    user: str = ""  # whoever stands behind the client; one user keeps one variant of a deployment

    def sampling(self, defaults: SamplingSpec) -> SamplingSpec:
        """How to sample: what the client said, else what the deployment says."""
        said = {name: getattr(self, name) for name in ("max_tokens", "temperature", "top_p", "seed")}
        chosen = {name: value for name, value in said.items() if value is not None}
        return defaults.model_copy(update={**chosen, **({"stop": self.stop} if self.stop else {})})


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Part(_Wire):
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None


class _Turn(_Wire):
    """One message. The last fields are what clients send back when they append our answer to the next request."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[_Part], Field(min_length=1)]
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None

    def decode(self) -> Message:
        parts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content]
        return Message(_ROLES[self.role], _JOINT.join(parts))


class _StreamOptions(_Wire):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


def _check_metadata(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > 16 or any(len(key) > 64 or len(value) > 512 for key, value in pairs.items()):
        raise ValueError("at most 16 pairs, keys of 64 and values of 512 characters")
    return pairs


class _Request(_Wire):
    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[_Turn], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
        | None
    ) = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    metadata: Annotated[dict[str, str], AfterValidator(_check_metadata)] | None = None
    safety_identifier: Annotated[str, Field(max_length=512)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    prompt_cache_key: Annotated[str, Field(max_length=512)] | None = None


_KNOWN = frozenset(_Request.model_fields) | IGNORED | frozenset(NEUTRAL)


def decode_chat(body: bytes) -> ChatCall:
    """The request in `body`. Raises InvalidInput whose `where` is the parameter at fault (`messages[0].content`)."""
    try:
        text = body.decode()
        fields = json.loads(text)
        if "\\u" in text:  # an escape can spell half a surrogate pair, which no tokenizer, digest or ledger can take
            json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeError:
        raise InvalidInput("the body is not Unicode text", hint="send UTF-8, and surrogates in pairs") from None
    except (ValueError, RecursionError):
        raise InvalidInput("the body is not JSON", hint="send a JSON object with `model` and `messages`") from None
    if not isinstance(fields, dict):
        raise InvalidInput("the body is not a JSON object", hint="send a JSON object with `model` and `messages`")
    _refuse_what_would_change_the_answer(fields)
    try:
        request = _Request.model_validate({name: fields[name] for name in fields if name in _Request.model_fields})
    except ValidationError as error:
        raise _explain(error.errors(include_url=False)) from None
    return _to_call(request)


def encode_chat(call: ChatCall) -> dict[str, Any]:
    """The JSON object that asks for `call`; `decode_chat` is its inverse."""
    body: dict[str, Any] = {
        "model": call.model,
        "messages": [{"role": message.role, "content": message.content} for message in call.messages],
        "max_completion_tokens": call.max_tokens,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "seed": call.seed,
        "stop": list(call.stop) or None,
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
    return ChatCall(
        model=request.model,
        messages=tuple(turn.decode() for turn in request.messages),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed,
        stop=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        stream=bool(request.stream),
        include_usage=bool(options and options.include_usage),
        metadata=request.metadata or {},
        user=request.safety_identifier or request.user or request.prompt_cache_key or "",
    )


def _explain(problems: list[ErrorDetails]) -> InvalidInput:
    """The problem in OpenAI's words; of a union's branches the one that got deepest is the one that was meant."""
    problem = max(problems, key=lambda each: len(each["loc"])) if len(problems) > 1 else problems[0]
    where = ""
    for part in problem["loc"]:
        if isinstance(part, int):
            where += f"[{part}]"
        elif part.isidentifier():  # pydantic puts the branch of a union, such as `list[_Part]`, among the names
            where += f".{part}" if where else part
    message = {"missing": "is missing", "extra_forbidden": "is not known or not supported here"}.get(
        problem["type"], problem["msg"][:1].lower() + problem["msg"][1:]
    )
    if problem["type"] == "literal_error" and problem["loc"][-1] == "type":
        message = "only text parts are supported here"
    return InvalidInput(f"{where}: {message}"[:300], where=where[:128])
