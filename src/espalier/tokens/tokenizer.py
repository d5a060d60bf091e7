"""A tokenizer with its chat template: trained here, or loaded from a model's folder.

Knows the files transformers reads (tokenizer.json, tokenizer_config.json, chat_template.jinja) and not transformers
itself.

How text is cut before byte-level BPE decides how well a small model copies, because copying is matching the same ids
again:
- digits in groups of one or two from the left, so that an id or a date is always cut alike;
- a capitalised word never carries its space, so `Printer` has the same ids in prose, after a quote and inside a tag;
- a lower-case word carries it, so that prose stays short;
- punctuation takes the space after it when a capital or a digit follows, which prose is full of;
- capitals stand alone, a newline stands alone (a turn's end is always a token's end), `</`, `/>` and `="` stand
  together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Message, Tool, ToolCall
from espalier.tokens import chat

PAD, TURN_START, TURN_END = "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (PAD, TURN_START, TURN_END)  # ids 0, 1, 2
PIECES = "|".join(
    (
        r"\p{N}{1,2}",
        r"\p{Lu}\p{Ll}*",
        r" ?\p{Ll}+",
        r" ?[\p{Lo}\p{Lm}\p{Lt}\p{M}]+",
        r"</|/>|=\"",
        r"[^\s\p{L}\p{N}] (?=[^ \p{Ll}])",
        r"\n",
        r" +(?=[^ \p{Ll}])",
        r" ",
        r"[^\s\p{L}\p{N}]",
        r"\s",
    )
)


@dataclass(frozen=True, slots=True)
class ChatTokenizer:
    """A tokenizer, its chat template and the names of its special tokens."""

    backend: Tokenizer
    template: str
    special_tokens: dict[str, str]  # bos_token, eos_token, pad_token ... as far as the model names them

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which special tokens may be written out; nothing is put before or after."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of ids."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=skip_special)
        return text

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Tool] = (),
        on: date | None = None,
    ) -> str:
        """The conversation as text, by this model's template; `on`: the day it may name, None = today.

        Raises InvalidInput when there is no template, and where it knows no tools but is given some.
        """
        if not self.template:
            raise InvalidInput(
                "this model has no chat template, so it cannot be asked in messages",
                hint="use a chat model, or train on raw text with a template given in the recipe",
            )
        return chat.render_chat(
            self.template,
            messages,
            add_generation_prompt=add_generation_prompt,
            special_tokens=self.special_tokens,
            tools=tools,
            on=on,
        )

    def encode_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), on: date | None = None
    ) -> list[int]:
        """Ids of the conversation with the assistant's turn opened: what serving feeds, what training puts first.

        tools: what the model may call. on: the day the template may name, None = today.
        Raises InvalidInput for a message or tool that spells a special token: it would end its turn and speak as
        another role; and where the template knows no tools but is given some.
        """
        marks = [token.content for token in self.backend.get_added_tokens_decoder().values() if token.special]
        for number, message in enumerate(messages):
            said = [
                message.content,
                message.tool_call_id,
                *(word for call in message.tool_calls for word in _words(call)),
            ]
            _refuse_marks(marks, said, f"message {number + 1}", f"messages[{number}].content")
        for number, tool in enumerate(tools):
            said = [tool.name, tool.description, _spell(tool.parameters)]
            _refuse_marks(marks, said, f"tool {tool.name}", f"tools[{number}]")
        text = self.render(messages, add_generation_prompt=True, tools=tools, on=on)
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput("half a surrogate pair, which is no character", hint="write it whole") from None
        return self.encode(text)

    @property
    def call_format(self) -> chat.CallFormat | None:
        """How this model writes calls of tools; None where its template knows none."""
        return chat.call_format(self.template, **self.special_tokens) if self.template else None

    @property
    def eos_id(self) -> int | None:
        """The id that ends an answer, None when the model names none."""
        found = self.backend.token_to_id(self.special_tokens.get("eos_token", ""))
        return None if found is None else int(found)

    @property
    def turn_end(self) -> str:
        """The special token with which the template ends an assistant's turn, which need not be eos; "" for none."""
        tail = chat.answer_tail(self.template, **self.special_tokens) if self.template else ""
        special = (token.content for token in self.backend.get_added_tokens_decoder().values() if token.special)
        found = [(tail.index(token), -len(token), token) for token in special if token in tail]
        return min(found)[2] if found else ""

    @property
    def turn_end_id(self) -> int | None:
        """Its id, None for none."""
        found = self.backend.token_to_id(self.turn_end) if self.turn_end else None
        return None if found is None else int(found)

    @property
    def opening(self) -> list[int]:
        """What this tokenizer puts before any text that is not a chat: a bos token, or nothing."""
        ids: list[int] = self.backend.encode("", add_special_tokens=True).ids
        bos = self.backend.token_to_id(self.special_tokens.get("bos_token", ""))
        return ids[:1] if ids and ids[0] == bos else []

    @property
    def size(self) -> int:
        """How many ids there are, special ones included."""
        return int(self.backend.get_vocab_size())

    @property
    def digest(self) -> str:
        """sha256 of what decides text -> ids; the template has its own, `template_digest`."""
        return sha256(self.backend.to_str().encode()).hexdigest()

    @property
    def template_digest(self) -> str:
        """sha256 of the chat template."""
        return chat.template_digest(self.template)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> ChatTokenizer:
    """A byte-level BPE of `vocabulary` ids with ChatML turns. Every text round-trips, by bytes if need be."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    names = {"bos_token": TURN_START, "eos_token": TURN_END, "pad_token": PAD}
    return ChatTokenizer(backend, chat.CHATML, names)


def load_tokenizer(folder: Path) -> ChatTokenizer:
    """The tokenizer in a model's folder. Raises NotFound when there is none, InvalidInput when a file is broken."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFound(f"no tokenizer.json in {folder}", hint="a model folder holds one beside its weights")
    config_path = folder / "tokenizer_config.json"
    try:
        backend = Tokenizer.from_file(str(path))
        config = json.loads(config_path.read_text()) if config_path.is_file() else {}
    except Exception as error:  # tokenizers raises bare Exception on a broken file
        raise InvalidInput(f"the tokenizer in {folder} cannot be read: {error}") from error
    template_path = folder / "chat_template.jinja"
    template = template_path.read_text() if template_path.is_file() else _first_template(config)
    names = {
        name: _word(config[name]) for name in ("bos_token", "eos_token", "pad_token", "unk_token") if config.get(name)
    }
    return ChatTokenizer(backend, template, names)


def save_tokenizer(tokenizer: ChatTokenizer, folder: Path, *, context_tokens: int) -> None:
    """Write the three files so that `AutoTokenizer.from_pretrained(folder)` gives the same ids and the same chats."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_tokens,
        "clean_up_tokenization_spaces": False,
        **tokenizer.special_tokens,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(tokenizer.template)


def _words(call: ToolCall) -> tuple[str, ...]:
    """All that a template may write of a call: also what escapes in its arguments spell, once they are read."""
    return (call.id, call.name, call.arguments, _spell(chat.read_arguments(call.arguments)))


def _spell(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise InvalidInput("a tool is nested too deeply", hint="send a flatter one") from None


def _refuse_marks(marks: Sequence[str], said: Sequence[str], whose: str, where: str) -> None:
    spelt = next((mark for mark in marks if any(mark in words for words in said)), "")
    if spelt:
        raise InvalidInput(
            f"{whose} holds {spelt}, which marks turns for this model",
            where=where,
            hint="take it out of the text, or put a space into it",
        )


def _first_template(config: dict[str, Any]) -> str:
    found = config.get("chat_template") or ""
    if isinstance(found, list):  # named templates: the default one
        return next((str(item["template"]) for item in found if item.get("name") == "default"), "")
    return str(found)


def _word(value: Any) -> str:
    return str(value["content"]) if isinstance(value, dict) else str(value)
