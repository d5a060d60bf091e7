"""Whatever a model says, an answer with a form has it: on both kinds of tokenizer, drawn, greedy and under adapters."""

from __future__ import annotations

import json
import random
import re
import threading
from pathlib import Path
from typing import Any

import jsonschema
import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.core.config import ServeConfig
from espalier.core.errors import InvalidInput
from espalier.core.types import Message, ResponseFormat, SamplingSpec
from espalier.nn.base import load_base
from espalier.serve.engine import Engine
from espalier.serve.grammar import MOST_CHARS, GrammarCompiler
from espalier.testing.families import family_tokenizer

KINDS = ["qwen-2.5", "mistral"]  # byte-level; SentencePiece-like
_compilers: dict[str, GrammarCompiler] = {}


def compiler_of(kind: str) -> GrammarCompiler:
    words = family_tokenizer(kind)
    assert words.eos_id is not None
    return _compilers.setdefault(kind, GrammarCompiler(words, [words.eos_id]))


def babble(kind: str, form: ResponseFormat, seed: int, most_tokens: int = 400) -> tuple[str, bool]:
    """(what a model that chooses at random says, whether it came to an end)."""
    words, chance = family_tokenizer(kind), random.Random(seed)
    grammar = compiler_of(kind).compile(form)
    ids: list[int] = []
    for _ in range(most_tokens):
        if grammar.complete:
            break
        allowed = numpy.flatnonzero(grammar.allowed()[: words.size]).tolist()
        assert allowed, "something may always come next"
        token = chance.choice(allowed)
        if token == words.eos_id:
            return words.decode(ids), True
        grammar.accept(token)
        ids.append(token)
    return words.decode(ids), grammar.complete


def schema(text: Any) -> ResponseFormat:
    return ResponseFormat(kind="json_schema", text=json.dumps(text))


names = st.sampled_from(["a", "bé", "c d", "größe"])
leaves = st.sampled_from(
    [
        {"type": "integer", "minimum": -5, "maximum": 900},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["x", "ü", 3, None]},
        {"type": "string", "maxLength": 8},
        {"type": "string", "pattern": "^[a-z]{2,4}-[0-9]$"},
        {"const": "only"},
    ]
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(names, inner, min_size=1, max_size=3).flatmap(
        lambda properties: st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.just(properties),
                "required": st.lists(st.sampled_from(sorted(properties)), unique=True),
                "additionalProperties": st.just(False),
            }
        )
    )


def _arrays(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return inner.map(lambda items: {"type": "array", "items": items, "minItems": 1, "maxItems": 3})


schemas = st.recursive(
    leaves,
    lambda inner: (
        _objects(inner) | _arrays(inner) | st.lists(inner, min_size=1, max_size=2).map(lambda ways: {"anyOf": ways})
    ),
    max_leaves=5,
)


@settings(max_examples=50)
@given(schemas, st.sampled_from(KINDS), st.integers(0, 9))
def test_whatever_a_model_says_parses_and_is_valid(form: dict[str, Any], kind: str, seed: int) -> None:
    text, ended = babble(kind, schema(form), seed)
    if ended:
        jsonschema.validate(json.loads(text), form)


@pytest.mark.parametrize("kind", KINDS)
def test_most_of_them_end(kind: str) -> None:
    """Else the test above would show nothing."""
    form = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x", "y"]}}, "required": ["a"]}
    closed = {**form, "additionalProperties": False}
    assert sum(babble(kind, schema(closed), seed)[1] for seed in range(20)) >= 15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pattern", [r"[A-Z]{3}-[0-9]{2,4}", r"(yes|no)(, (yes|no)){0,3}\.", "größe|kleine"])
def test_an_answer_matches_its_expression(kind: str, pattern: str) -> None:
    for seed in range(10):
        text, ended = babble(kind, ResponseFormat(kind="regex", text=pattern), seed)
        assert ended and re.fullmatch(pattern, text)


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_follows_its_grammar(kind: str) -> None:
    lark = 'start: sum\nsum: NUMBER (("+"|"-") NUMBER)*\nNUMBER: /[0-9]{1,3}/\n'
    for seed in range(10):
        text, ended = babble(kind, ResponseFormat(kind="grammar", text=lark), seed, 60)
        assert re.fullmatch(r"\d{1,3}([+-]\d{1,3})*" if ended else r"\d{1,3}([+-]\d{1,3})*[+-]?", text)


@pytest.mark.parametrize("kind", KINDS)
def test_json_without_a_schema_is_an_object(kind: str) -> None:
    for seed in range(10):
        text, ended = babble(kind, ResponseFormat(kind="json_object"), seed)
        assert text.startswith("{") and (not ended or isinstance(json.loads(text), dict))


def test_what_stands_between_the_parts_of_json_is_bounded() -> None:
    """Else a model that likes spaces writes nothing else until its tokens are spent."""
    grammar = compiler_of("qwen-2.5").compile(schema({"type": "array", "items": {"type": "integer"}}))
    space = family_tokenizer("qwen-2.5").encode(" ")
    (opening,) = family_tokenizer("qwen-2.5").encode("[")
    grammar.accept(opening)
    taken = 0
    while grammar.allowed()[space[0]] and taken < 100:
        grammar.accept(space[0])
        taken += 1
    assert taken == 2


@pytest.mark.parametrize(
    ("form", "where"),
    [
        (ResponseFormat(kind="json_schema", text="{"), "response_format"),
        (ResponseFormat(kind="json_schema", text="3"), "response_format"),
        (ResponseFormat(kind="json_schema", text="[" * 50_000), "response_format"),
        (schema({"type": "objct"}), "response_format.type"),
        (schema({"properties": {"a": {"items": [1, {"type": 5}]}}}), "response_format.properties.a.items"),
        (schema({"$ref": "http://example.org/schema"}), "response_format"),
        (schema({"$ref": "file:///etc/passwd"}), "response_format"),
        (schema({"oneOf": [{"type": "integer"}, {"type": "number"}]}), "response_format"),
        (schema({"properties": {f"p{i}": {} for i in range(3000)}}), "response_format"),
        (ResponseFormat(kind="json_schema", text='"' + "x" * MOST_CHARS + '"'), "response_format"),
        (ResponseFormat(kind="regex", text="(a"), "structured_outputs"),
        (ResponseFormat(kind="regex", text="(?=a)b"), "structured_outputs"),
        (ResponseFormat(kind="regex", text="a" * (MOST_CHARS + 1)), "structured_outputs"),
        (ResponseFormat(kind="grammar", text="start: nothing"), "structured_outputs"),
        (ResponseFormat(kind="grammar", text='begin: "a"'), "structured_outputs"),
        (ResponseFormat(kind="grammar", text="start: /(/"), "structured_outputs"),
    ],
)
def test_what_is_no_form_is_refused_saying_where(form: ResponseFormat, where: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        compiler_of("qwen-2.5").compile(form)
    assert refusal.value.where.startswith(where)
    assert len(refusal.value.message) < 700


def test_a_schema_nested_too_deeply_is_refused() -> None:
    form: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        form = {"type": "object", "properties": {"a": form}}
    with pytest.raises(InvalidInput, match="recursion limit"):
        compiler_of("qwen-2.5").compile(schema(form))


def test_a_form_is_compiled_once_and_each_answer_goes_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    words = family_tokenizer("qwen-2.5")
    compiler = GrammarCompiler(words, [words.eos_id or 0])
    tried, try_once = [], compiler._try

    def count(grammar: str, where: str) -> Any:
        tried.append(grammar)
        return try_once(grammar, where)

    monkeypatch.setattr(compiler, "_try", count)
    form = ResponseFormat(kind="regex", text="ab|ba")
    one, other = compiler.compile(form), compiler.compile(form)
    (a,), (b,) = words.encode("a"), words.encode("b")
    one.accept(a)
    other.accept(b)
    assert one.allowed()[b] and not one.allowed()[a] and other.allowed()[a] and not other.allowed()[b]
    assert len(tried) == 1
    for number in range(200):
        compiler.compile(ResponseFormat(kind="regex", text=f"x{number}"))
    compiler.compile(form)
    assert len(compiler._kept) <= 64 and len(tried) == 202, "what was not used for long is forgotten"


FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "ok": {"type": "boolean"}},
    "required": ["n", "ok"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("adapter", ["", "a"])
@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 1.5, "seed": 3}, {"temperature": 1.0, "top_k": 5, "repetition_penalty": 1.5, "logprobs": 2}],
    ids=str,
)
def test_the_engine_s_answers_have_their_form_and_end_with_it(
    tiny_folder: Path, adapter_folders: dict[str, Path], adapter: str, sampling: dict[str, Any]
) -> None:
    engine = Engine(load_base(f"path:{tiny_folder}"), ServeConfig(max_batch=4, max_context_tokens=300))
    engine.load_adapter("a", adapter_folders["a"])
    questions = [[Message("user", f"question {i}")] for i in range(6)]
    asked = SamplingSpec(**{"max_tokens": 150, **sampling}, format=schema(FORM))
    answers = engine.generate(questions, asked, adapter)
    assert len({answer.text for answer in answers}) > 1 or not asked.temperature
    for answer in answers:
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.text), FORM)
        assert len(answer.logprobs) == (len(answer.token_ids) if asked.logprobs else 0)
    free = engine.generate(questions, asked.model_copy(update={"format": None}), adapter)
    assert all(answer.text != other.text for answer, other in zip(answers, free, strict=True))


def test_neighbours_of_an_answer_with_a_form_are_not_touched_by_it(tiny_folder: Path) -> None:
    engine = Engine(load_base(f"path:{tiny_folder}"), ServeConfig(max_batch=4, max_context_tokens=300))
    plain = SamplingSpec(max_tokens=60)
    expected = engine.generate([[Message("user", "hello")]], plain)[0].text
    engine.start()
    try:
        formed: list[str] = []
        other = threading.Thread(
            target=lambda: formed.extend(
                answer.text
                for answer in engine.generate(
                    [[Message("user", str(i))] for i in range(3)], SamplingSpec(max_tokens=60, format=schema(FORM))
                )
            )
        )
        other.start()
        beside = engine.generate([[Message("user", "hello")]], plain)[0].text
        other.join()
    finally:
        engine.stop()
    assert beside == expected and all(json.loads(text) for text in formed)
