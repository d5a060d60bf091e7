"""What tokenizer.json says happens to text before the model sees words, as a plan the kernels can follow.

Recognises the pre-tokenizers of byte-level models (any sequence of Split, Digits and Punctuation that ends in
ByteLevel) and of SentencePiece-style ones (no cut, or Metaspace). What cannot be followed exactly raises
`UnknownPattern` or `UnknownModel`, and the caller leaves the work to Hugging Face's own code.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from espalier.tokens.bpe_tables import SPACE, merged_tokens
from espalier.tokens.pretoken_charsets import CODE_POINTS, kind_charset
from espalier.tokens.pretoken_pattern import Automaton, UnknownPattern, compile_pattern, compile_set, is_total
from espalier.tokens.tokenizer import PIECES

Json = Mapping[str, Any]
Prefix = Literal[
    "never", "always", "absent"
]  # a space before the text: also if it starts with one, only if it does not

# ByteLevel's own expression (huggingface/tokenizers, pre_tokenizers/byte_level.rs), as OpenAI's GPT-2 has it.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST  # cl100k's too
QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = (  # Mistral's, since NeMo
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FAMILIES: dict[tuple[str, ...], str] = {
    (GPT2,): "gpt2",
    (LLAMA3,): "llama3",
    (QWEN2,): "qwen2",
    (O200K,): "o200k",
    (TEKKEN,): "tekken",
    ("Digits", GPT2): "starcoder",
    (PIECES,): "seedling",
}


class AddedTokens(NamedTuple):
    """Added tokens, to be found in text by their first two bytes.

    firsts: uint8 (256,), 1 where some token starts with the byte. order[buckets[pair]:buckets[pair + 1]]: the tokens
    that may start with the two bytes `pair`, longest first; contents[offsets[t]:offsets[t + 1]]: token t's bytes.
    """

    firsts: npt.NDArray[np.uint8]
    buckets: npt.NDArray[np.int64]
    order: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    contents: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Plan:
    """How text becomes words."""

    family: str
    alphabet: Literal["bytes", "characters"]
    stages: tuple[Automaton, ...]
    prefix: Prefix
    suspects: npt.NDArray[np.uint8] | None  # (CODE_POINTS,): only texts with one of these can change in normalising
    early: AddedTokens  # found in the text as it is
    late: AddedTokens  # found in the text as normalised
    odd: AddedTokens  # take white space with them, or stand alone only: Hugging Face's code sees to such texts


def read_plan(settings: Json, normalize: Callable[[str], str]) -> Plan:
    """The plan of a tokenizer.json as tokenizers itself writes it, with its own normalizer. Raises UnknownPattern."""
    tokens = [token for token in settings["added_tokens"] if token["content"]]
    simple = [token for token in tokens if not (token["lstrip"] or token["rstrip"] or token["single_word"])]
    added = {
        "early": add_tokens(token for token in simple if not token["normalized"]),
        "late": add_tokens(
            {**token, "content": normalize(token["content"])} for token in simple if token["normalized"]
        ),
        "odd": add_tokens(
            {**token, "content": form}
            for token in tokens
            if token not in simple
            for form in sorted({token["content"], normalize(token["content"])})
        ),
    }
    if settings["model"].get("byte_fallback"):
        return _character_plan(settings, added)
    descriptions, stages, prefix = _byte_stages(_flatten(settings["pre_tokenizer"], "pretokenizers"))
    family = _FAMILIES.get(tuple(descriptions), "unnamed pattern")
    return Plan(family, "bytes", tuple(stages), prefix, _suspects(settings["normalizer"]), **added)


def add_tokens(tokens: Iterable[Json]) -> AddedTokens:
    """The search table of some entries of `added_tokens`."""
    contents = [(token["content"].encode(), int(token["id"])) for token in tokens if token["content"]]
    found = sorted(contents, key=lambda item: -len(item[0]))
    firsts = np.zeros(256, np.uint8)
    starts = []  # (the two bytes, token) for every two bytes a token may be found by
    for number, (content, _) in enumerate(found):
        firsts[content[0]] = 1
        seconds = [content[1]] if len(content) > 1 else range(256)
        starts += [(content[0] << 8 | second, number) for second in seconds]
    starts.sort()
    sizes = np.bincount(np.array([pair for pair, _ in starts], np.int64), minlength=1 << 16)
    return AddedTokens(
        firsts,
        np.concatenate([[0], np.cumsum(sizes)]),
        np.array([number for _, number in starts], np.int32),
        np.cumsum([0, *(len(content) for content, _ in found)], dtype=np.int64),
        np.array([byte for content, _ in found for byte in content], np.uint8),
        np.array([number for _, number in found], np.int32),
    )


def _flatten(part: Json | None, inside: str) -> list[Json]:
    if part is None:
        return []
    if part["type"] == "Sequence":
        return [leaf for child in part[inside] for leaf in _flatten(child, inside)]
    return [part]


def _byte_stages(parts: Sequence[Json]) -> tuple[list[str], list[Automaton], Prefix]:
    if not parts or parts[-1]["type"] != "ByteLevel":
        raise UnknownPattern("the pre-tokenizer does not end in ByteLevel")
    descriptions, stages = [], []
    for part in parts[:-1]:
        description, automaton = _cut(part)
        descriptions.append(description)
        stages.append(automaton)
    prefix: Prefix = "never"
    if parts[-1]["add_prefix_space"]:
        if len(parts) > 1:
            raise UnknownPattern("a space before every piece")
        prefix = "absent"
    if parts[-1].get("use_regex", True):
        descriptions.append(GPT2)
        stages.append(compile_pattern(GPT2))
    return descriptions, stages, prefix


def _cut(part: Json) -> tuple[str, Automaton]:
    """One Split, Digits or Punctuation: its description and its table."""
    kind = part["type"]
    if kind == "Digits":
        single = part["individual_digits"]
        return "Digits" if single else "Digits in runs", compile_set(kind_charset(kind), runs=not single)
    behavior = part.get("behavior")
    if kind == "Punctuation" and behavior in ("Isolated", "Contiguous"):
        return f"Punctuation {behavior}", compile_set(kind_charset(kind), runs=behavior == "Contiguous")
    if kind != "Split":
        raise UnknownPattern(f"the pre-tokenizer {kind} {behavior or ''}".rstrip())
    given = part["pattern"]
    pattern = given["Regex"] if "Regex" in given else _escape(given["String"])
    automaton = compile_pattern(pattern)
    if (behavior, part["invert"]) == ("Isolated", False):
        return pattern, automaton
    if (behavior, part["invert"]) == ("Removed", True) and is_total(automaton):  # nothing lies between, to be removed
        return pattern, automaton
    raise UnknownPattern(f"Split {behavior}{' inverted' if part['invert'] else ''}")


def _escape(literal: str) -> str:
    return "".join(f"\\{one}" if one.isascii() and not one.isalnum() and one.isprintable() else one for one in literal)


def _character_plan(settings: Json, added: dict[str, AddedTokens]) -> Plan:
    """SentencePiece-style: a space is a letter, U+2581; words are cut where no merge can reach across."""
    replaces, prefix = _space_normalizer(_flatten(settings["normalizer"], "normalizers"))
    parts = _flatten(settings["pre_tokenizer"], "pretokenizers")
    cuts_at_spaces = False
    if parts and parts[0]["type"] == "Metaspace" and len(parts) == 1 and prefix == "never" and not replaces:
        scheme, cuts_at_spaces = parts[0]["prepend_scheme"], parts[0].get("split", True)
        if parts[0]["replacement"] != SPACE:
            raise UnknownPattern("a space written otherwise than as U+2581")
        prefix = "never" if scheme == "never" else "absent"
        replaces = True
    elif parts and not (replaces and all(_cuts_at_plain_space(part) for part in parts)):
        raise UnknownPattern(f"the pre-tokenizer {parts[0]['type']} of a model of characters")
    if not replaces:
        raise UnknownPattern("a model of characters that does not write spaces as U+2581")
    if settings["model"].get("ignore_merges"):
        raise UnknownPattern("ignore_merges in a model of characters")
    if cuts_at_spaces:
        stage = compile_pattern(f"[ {SPACE}][^ {SPACE}]*|[^ {SPACE}]+")
    else:
        stage = _words_no_merge_leaves(merged_tokens(settings["model"]))
    return Plan("sentencepiece", "characters", (stage,), prefix, None, **added)


def _space_normalizer(parts: Sequence[Json]) -> tuple[bool, Prefix]:
    """Whether spaces become U+2581, and whether one is put first."""
    prefix: Prefix = "never"
    replaces = False
    for part in parts:
        if part["type"] == "Prepend" and part["prepend"] == SPACE and prefix == "never":
            prefix = "always"
        elif part["type"] == "Replace" and part["pattern"] == {"String": " "} and part["content"] == SPACE:
            replaces = True
        else:
            raise UnknownPattern(f"the normalizer {part['type']} of a model of characters")
    return replaces, prefix


def _cuts_at_plain_space(part: Json) -> bool:
    """Gemma's: after normalising there is no plain space left to cut at."""
    return bool(part["type"] == "Split" and part["pattern"] == {"String": " "})


def _words_no_merge_leaves(made: Iterable[str]) -> Automaton:
    """Cut before a space unless some merge makes a token in which the character before it precedes a space.

    Every token that is made by crossing that place holds both characters side by side; so where there is none, the
    parts are merged apart, and each word has its own ids.
    """
    joining = {token[at - 1] for token in made for at in range(1, len(token)) if token[at] == SPACE}
    classes = np.zeros(CODE_POINTS, np.uint8)  # 0: a space after it starts a word, 1: it does not
    for character in joining:
        classes[ord(character)] = 1
    classes[[ord(SPACE), ord(" ")]] = 2
    none, joined, loose = 0, 8, 12  # offsets of states; 4 is the start
    space = joined if SPACE in joining else loose
    going = [loose, joined, space]
    steps = [0, 0, 0, 0]
    steps += [*(state * 2 for state in going), none]
    steps += [*(state * 2 for state in going), none * 2 + 1]
    steps += [loose * 2, joined * 2, none * 2 + 1, none * 2 + 1]
    table = np.array(steps, np.int32)
    classes.flags.writeable = table.flags.writeable = False  # as compiled patterns have it: one type for the kernels
    return Automaton(classes, table, 4)


def _suspects(normalizer: Json | None) -> npt.NDArray[np.uint8] | None:
    parts = _flatten(normalizer, "normalizers")
    if not parts:
        return None
    if [part["type"] for part in parts] == ["NFC"]:
        return composable()
    return np.ones(CODE_POINTS, np.uint8)


@cache
def composable() -> npt.NDArray[np.uint8]:
    """1 for each character that NFC may change or join to the one before it, or that Python's Unicode does not know.

    What is left stays as it is under every version of Unicode (Standard Annex 15, stability of normalised text).
    (CODE_POINTS,)
    """
    marks = np.ones(CODE_POINTS, np.uint8)
    seconds = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))  # Hangul vowels and finals
    for point in range(0x32400):
        parts = unicodedata.decomposition(chr(point)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            seconds.add(int(parts[1], 16))
    for point in range(0x32400):
        character = chr(point)
        marks[point] = (
            point in seconds
            or unicodedata.combining(character) != 0
            or unicodedata.category(character) == "Cn"
            or not unicodedata.is_normalized("NFC", character)
        )
    return marks
