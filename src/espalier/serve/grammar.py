"""What an answer must look like, compiled: a schema, expression or grammar -> which tokens may come next.

Over llguidance (https://github.com/guidance-ai/llguidance): it walks the vocabulary as bytes, so byte-level and
SentencePiece-like tokenizers are the same to it. Compiled forms are kept, the latest used, for one tokenizer. Knows no
model, and fetches nothing a schema refers to.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from espalier.core.errors import InvalidInput
from espalier.core.types import ResponseFormat
from espalier.tokens.tokenizer import ChatTokenizer

MOST_CHARS = 64 * 1024
_KEPT_FORMS = 64
_SHOWN_CHARS = 400
_EXPLAINED_CHARS = 16 * 1024
# Between the parts of JSON: one or two spaces, or a line and its indentation. Unbounded, it could go on for ever.
_BETWEEN = r"[ ]{1,2}|\n[ ]{0,32}"


class Grammar:
    """One answer's way through a compiled form. Implements nn.sample.Form."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self) -> numpy.typing.NDArray[numpy.bool_]:
        """(vocabulary, rounded up): whether each id may come next. An end token may where the form is complete."""
        bits = numpy.frombuffer(self._matcher.compute_bitmask(), dtype=numpy.uint8)
        return numpy.unpackbits(bits, bitorder="little").view(numpy.bool_)

    def accept(self, token: int) -> None:
        """The answer has grown by `token`. Raises InvalidInput when following the form became too costly."""
        self._matcher.consume_token(token)
        self.check()

    def check(self) -> None:
        """Raises InvalidInput when following the form became too costly: then only end tokens are allowed, anywhere."""
        if self._matcher.is_error():
            raise InvalidInput(
                f"the answer's form became too complex to follow: {_shorten(self._matcher.get_error())}",
                where="response_format",
                hint="ask for a simpler one",
            )

    def copy(self) -> Grammar:
        """Another at the same place, which goes its own way from here."""
        return Grammar(self._matcher.deep_copy())

    @property
    def complete(self) -> bool:
        """Whether nothing more may come."""
        return bool(self._matcher.is_stopped())


class GrammarCompiler:
    """Compiles forms for one tokenizer. Safe to share between threads; compiling blocks for milliseconds."""

    def __init__(self, tokenizer: ChatTokenizer, end_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._end_ids = sorted(end_ids)
        self._words: LLTokenizer | None = None  # a second for a large vocabulary, so not before it is asked for
        self._kept: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()
        self._limits = LLParserLimits(
            max_items_in_row=2000,
            initial_lexer_fuel=2_000_000,
            step_lexer_fuel=400_000,
            max_lexer_states=50_000,
            max_grammar_size=20_000,
            verbose_errors=False,
        )

    def compile(self, format: ResponseFormat, *, where: str = "") -> Grammar:
        """The form, ready for one answer.

        Raises InvalidInput for what is no schema, expression or grammar, or too large a one; it says where: by the
        request's parameter and, in a schema, the path in it.
        """
        where = where or ("response_format" if format.kind.startswith("json") else "structured_outputs")
        if len(format.text) > MOST_CHARS:
            raise InvalidInput(
                f"a form of {len(format.text)} characters", where=where, hint=f"at most {MOST_CHARS} are read"
            )
        try:
            return self.compile_text(_write_grammar(format, where), where=where)
        except InvalidInput:
            if format.kind == "json_schema":
                explain_schema(read_schema(format.text, where), where)
            raise

    def compile_text(self, grammar: str, *, where: str) -> Grammar:
        """The same of llguidance's own notation."""
        with self._lock:
            found = self._kept.pop(grammar, None)
            if found is None:
                found = self._try(grammar, where)
            self._kept[grammar] = found
            if len(self._kept) > _KEPT_FORMS:
                self._kept.popitem(last=False)
            return Grammar(found.deep_copy())

    def _try(self, grammar: str, where: str) -> LLMatcher:
        found = LLMatcher(self._vocabulary(), grammar, log_level=0, limits=self._limits)
        first = found.deep_copy()
        if not first.is_error():
            first.compute_bitmask()  # what is too complex is mostly so from the start
        if not first.is_error():
            return found
        said = _shorten(first.get_error())
        hint = "write anyOf" if "oneOf" in said else "see docs/structured-output.md for what is understood"
        raise InvalidInput(f"{where}: {said}", where=where, hint=hint)

    def _vocabulary(self) -> LLTokenizer:
        if self._words is None:
            backend = self._tokenizer.backend
            self._words = LLTokenizer(backend.to_str(), eos_token=self._end_ids or None)
        return self._words


def close_spaces(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with what may stand between its parts bounded."""
    return {**schema, "x-guidance": {"whitespace_pattern": _BETWEEN}}


def read_schema(text: str, where: str) -> dict[str, Any]:
    """The object in `text`. Raises InvalidInput when it is none."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidInput(f"{where}: the schema is not JSON", where=where) from None
    if not isinstance(schema, dict):
        raise InvalidInput(f"{where}: the schema is no JSON object", where=where)
    return schema


def explain_schema(schema: dict[str, Any], where: str) -> None:
    """Raise InvalidInput whose `where` ends in the path of what is no JSON Schema; return where it is one.

    A millisecond for each part of the schema, so only what was refused already is looked at, and no large one.
    """
    if len(json.dumps(schema)) > _EXPLAINED_CHARS:
        return
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        path = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        raise InvalidInput(
            f"{path}: {error.message}"[:_SHOWN_CHARS], where=path[:200], hint="write it as JSON Schema 2020-12"
        ) from None
    except RecursionError:
        return


def _write_grammar(format: ResponseFormat, where: str) -> str:
    match format.kind:
        case "json_object":
            return str(LLMatcher.grammar_from_json_schema(close_spaces({"type": "object"})))
        case "json_schema":
            return str(LLMatcher.grammar_from_json_schema(close_spaces(read_schema(format.text, where))))
        case "regex":
            return str(LLMatcher.grammar_from_regex(format.text))
        case "grammar":
            return str(LLMatcher.grammar_from_lark(format.text))


def _shorten(text: str) -> str:
    return " ".join(text.split())[:_SHOWN_CHARS]
