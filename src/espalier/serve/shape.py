"""What the answers to one request are made of: a form they must have, calls that are parsed out of them.

Made once for a request, before it enters the engine; each of its `n` answers gets a parser and a grammar of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from espalier.core.errors import InvalidInput
from espalier.core.ports import ChatRequest
from espalier.core.types import ResponseFormat, SamplingSpec, Tool
from espalier.serve.callgrammar import allow_calls, require_calls
from espalier.serve.grammar import MOST_CHARS, Grammar, GrammarCompiler, explain_schema
from espalier.serve.toolcalls import MARKS, CallParser
from espalier.tokens.chat import CallFormat
from espalier.tokens.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True)
class Shape:
    """How each answer to a request is made. `marks`: special tokens that are read as text, by id; `written`: the
    grammar of its calls in Lark's syntax, for engines elsewhere."""

    grammar: Grammar | None = None
    format: CallFormat | None = None
    names: frozenset[str] = frozenset()
    several: bool = True
    marks: dict[int, str] = field(default_factory=dict)
    written: str = ""

    def open_parser(self) -> CallParser | None:
        """A parser of calls for one answer, None where none may come."""
        return CallParser(self.format, self.names, several=self.several) if self.format else None

    def open_grammar(self) -> Grammar | None:
        """The form of one answer, from its beginning."""
        return self.grammar.copy() if self.grammar else None


PLAIN = Shape()


class Shaper:
    """Shapes requests for one tokenizer."""

    def __init__(self, tokenizer: ChatTokenizer, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._compiler = GrammarCompiler(tokenizer, end_ids)

    def shape(self, request: ChatRequest) -> Shape:
        """Blocks while a form is compiled for the first time.

        Raises InvalidInput for a form that cannot be followed, and for tools of a model that knows none.
        """
        tools, form = shown_tools(request), request.sampling.format
        if not tools:
            return self.shape_form(request.sampling) if form else PLAIN
        if form is not None:
            raise InvalidInput(
                "a form of the answer and tools are asked for together",
                where="response_format",
                hint="send tool_choice none with the form, or leave the form out",
            )
        format = self._tokenizer.call_format
        if format is None:
            raise InvalidInput(
                "this model's chat template knows no tools",
                where="tools",
                hint="ask a model whose family has them, such as Qwen, Llama 3.1 or Mistral",
            )
        named = tuple(tool for tool in tools if tool.name == request.tool_choice)
        several = request.parallel_calls and not named
        marks = self._find_marks(format)
        special = {mark: id for id, mark in marks.items()}
        grammar = None
        if request.tool_choice != "auto":
            grammar = require_calls(format, named or tools, special, several=several)
        elif any(tool.strict for tool in tools):
            grammar = allow_calls(format, tools, special, several=several)
        compiled = self._compile(grammar, tools) if grammar else None
        names = frozenset(tool.name for tool in named or tools)
        return Shape(compiled, format, names, several, marks, grammar or "")

    def shape_form(self, sampling: SamplingSpec) -> Shape:
        """The shape of an answer that has a form and calls nothing."""
        form: ResponseFormat | None = sampling.format
        return Shape(self._compiler.compile(form)) if form else PLAIN

    def _compile(self, grammar: str, tools: tuple[Tool, ...]) -> Grammar:
        if len(grammar) > MOST_CHARS:
            raise InvalidInput(f"tools of {len(grammar)} characters", where="tools", hint="offer fewer at a time")
        try:
            return self._compiler.compile_text(grammar, where="tools")
        except InvalidInput:
            for number, tool in enumerate(tools):
                explain_schema(tool.parameters, f"tools[{number}].function.parameters")
            raise

    def _find_marks(self, format: CallFormat) -> dict[int, str]:
        """The family's marks that are special tokens here: decoding would leave them out."""
        added = self._tokenizer.backend.get_added_tokens_decoder()
        return {id: token.content for id, token in added.items() if token.special and token.content in MARKS[format]}


def is_plain(request: ChatRequest) -> bool:
    """Whether there is nothing to compile or to parse."""
    return request.sampling.format is None and not shown_tools(request)


def shown_tools(request: ChatRequest) -> tuple[Tool, ...]:
    """The tools the model is shown: none where none may be called."""
    return () if request.tool_choice == "none" else request.tools
