"""What pydantic finds wrong, in our words: a sentence for each fault, its place, and what was probably meant.

The one way from a ValidationError to an error of ours. Where a union's branches all complain, those of the branch that
was meant are told: of the right kind (a list, a mapping), with the fewest fields missing or unknown, then the fewest
faults; branches that would each have taken another simple value are told together. Knows no file and no face.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from espalier.core.errors import InvalidInput, did_you_mean

Location = tuple[int | str, ...]

_MOST_TOLD = 5
_MOST_LOOKED_AT = 1000  # a body can have a hundred thousand, and somebody else is waiting
_MAPPING = "a mapping of names to values"
_KINDS = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "bool_parsing": "true or false", "string_type": "text", "none_required": "null",
    "list_type": "a list", "tuple_type": "a list", "set_type": "a list", "frozen_set_type": "a list",
    "dict_type": _MAPPING, "mapping_type": _MAPPING, "model_type": _MAPPING, "model_attributes_type": _MAPPING,
    "dataclass_type": _MAPPING, "literal_error": "{expected}", "enum": "{expected}",
}  # fmt: skip
_BOUNDS = {
    "greater_than_equal": "at least {ge}", "greater_than": "more than {gt}", "less_than_equal": "at most {le}",
    "less_than": "less than {lt}", "multiple_of": "a multiple of {multiple_of}",
}  # fmt: skip
_NOTHING: Mapping[Any, Any] = {}
_OF_SHAPE = frozenset({"missing", "extra_forbidden", "missing_argument", "unexpected_keyword_argument"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: `place` is the path to it in the data, `said` the sentence, `type` pydantic's name."""

    place: Location
    said: str
    hint: str
    type: str

    def tell(self, root: str = "") -> str:
        """The sentence with its place; `root` is what the whole is called."""
        named = ".".join(map(str, self.place)) or root
        return f"{named}: {self.said}" if named else self.said


class _Items(Mapping[Any, Any]):
    """A list by place, and no copy of it: a body with thousands of faults is looked into for each of them."""

    def __init__(self, items: Sequence[Any]) -> None:
        self._items = items

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, int) and 0 <= place < len(self._items):
            return self._items[place]
        raise KeyError(place)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._items)))

    def __len__(self) -> int:
        return len(self._items)


@dataclass(slots=True)
class _Found:
    problem: ErrorDetails
    place: Location
    labels: tuple[int, ...]  # where in pydantic's location the name of a union's branch stands
    said: str = ""

    def branch(self, depth: int) -> tuple[Location, int | str]:
        """(the union, the branch) that this complaint comes from, `depth` unions down."""
        index = self.labels[depth]
        return self.problem["loc"][:index], self.problem["loc"][index]

    def is_of_kind(self, depth: int) -> bool:
        """Whether what the union was given is no value of the branch's kind at all."""
        return self.labels[depth] == len(self.problem["loc"]) - 1 and self.problem["type"] in _KINDS


def list_faults(error: ValidationError, data: Any, kind: Any = None) -> list[Fault]:
    """What is wrong with `data`, which was to be a `kind`: at least one fault, and of very many the first."""
    problems = error.errors(include_url=False)[:_MOST_LOOKED_AT]
    found = [_locate(problem, data) for problem in problems]
    return [_word(each, kind) for each in _choose(found)]


def refuse(
    error: ValidationError, data: Any, kind: Any = None, *, what: str = "", where: str = "", hint: str = ""
) -> InvalidInput:
    """The error to raise for `data`: its first faults after `what`; `hint` where none of them knows a better one."""
    faults = list_faults(error, data, kind)[:_MOST_TOLD]
    said = "; ".join(fault.tell() for fault in faults)
    better = next((fault.hint for fault in faults if fault.hint), hint)
    return InvalidInput(f"{what}: {said}" if what else said, where=where, hint=better)


def summarise(error: Exception) -> str:
    """A bug's error in one line, whatever it is: pydantic's has several, and a link."""
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    return f"{error.title}: " + "; ".join(fault.tell() for fault in list_faults(error, None)[:_MOST_TOLD])


def _locate(problem: ErrorDetails, data: Any) -> _Found:
    """pydantic puts the names of a union's branches into the location, and the data have no such level.

    A tag that stands in the data (`step: redact`) is kept: it tells which of many is spoken of.
    """
    place: list[int | str] = []
    labels: list[int] = []
    node, last = data, len(problem["loc"]) - 1
    for index, part in enumerate(problem["loc"]):
        inner = _children(node)
        if part in inner:
            place.append(part)
            node = inner[part]
        elif data is None:  # nothing to compare with: only what can be no name is none
            if re.search(r"[\[(]", str(part)):
                labels.append(index)
            else:
                place.append(part)
        elif (index == last and problem["type"] in _OF_SHAPE) or _is_told_in(part, inner):
            place.append(part)
        elif index < last or _is_same(problem["input"], node):
            labels.append(index)
        else:
            place.append(part)
    return _Found(problem, tuple(place), tuple(labels))


def _children(node: Any) -> Mapping[Any, Any]:
    if isinstance(node, Mapping):
        return node
    if isinstance(node, list | tuple):
        return _Items(node)
    return vars(node) if isinstance(node, BaseModel) else _NOTHING


def _is_told_in(part: int | str, inner: Mapping[Any, Any]) -> bool:
    """Whether a mapping says `part`, as a tag does; not looked for in all of what has thousands of faults."""
    return not isinstance(inner, _Items) and any(part == value for value in islice(inner.values(), 100))


def _is_same(one: Any, other: Any) -> bool:
    return one is other or bool(type(one) is type(other) and one == other)


def _choose(found: list[_Found]) -> list[_Found]:
    """Of each union's branches the one that was meant."""
    depth = 0
    while any(len(each.labels) > depth for each in found):
        unions: dict[Location, dict[int | str, list[_Found]]] = {}
        for each in found:
            if len(each.labels) > depth:
                union, branch = each.branch(depth)
                unions.setdefault(union, {}).setdefault(branch, []).append(each)
        meant = {id(one) for branches in unions.values() for one in _pick(branches, depth)}
        found = [each for each in found if len(each.labels) <= depth or id(each) in meant]
        depth += 1
    return found


def _pick(branches: Mapping[int | str, list[_Found]], depth: int) -> list[_Found]:
    every = [each for complaints in branches.values() for each in complaints]
    if all(each.is_of_kind(depth) for each in every):
        kinds = list(dict.fromkeys(_name_kind(each.problem) for each in every))
        every[0].said = f"must be {' or '.join(kinds)}"
        return every[:1]

    def distance(complaints: Sequence[_Found]) -> tuple[bool, int, int]:
        of_shape = sum(each.problem["type"] in _OF_SHAPE for each in complaints)
        return any(each.is_of_kind(depth) for each in complaints), of_shape, len(complaints)

    return min(branches.values(), key=distance)


def _word(found: _Found, kind: Any) -> Fault:
    problem, context = found.problem, found.problem.get("ctx", {})
    place, said, hint = found.place, found.said, ""
    chooser = str(context.get("discriminator", "")).strip("'")
    if problem["type"] == "union_tag_invalid":
        said = f"there is no {chooser} {context['tag']!r}"
        hint = did_you_mean(str(context["tag"]), str(context["expected_tags"]).replace("'", "").split(", "))
    elif problem["type"] == "union_tag_not_found":
        place, said = (*place, chooser), "missing"
    elif problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        said, hint = "unknown key", _near(kind, place)
    elif problem["type"] in ("missing", "missing_argument"):
        said = "missing"
    else:
        said = said or _say(problem)
        given = problem["input"]
        if not isinstance(given, Mapping | list | tuple | BaseModel):
            said += f" (got {given!r:.80})"
    return Fault(place, said, hint, problem["type"])


def _say(problem: ErrorDetails) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in _KINDS:
        return f"must be {_name_kind(problem)}"
    if kind in _BOUNDS:
        return f"must be {_BOUNDS[kind].format(**{name: _shorten(bound) for name, bound in context.items()})}"
    if kind in ("too_short", "string_too_short"):
        least = context["min_length"]
        return "must not be empty" if least == 1 else f"must have at least {least} {_unit(kind)}"
    if kind in ("too_long", "string_too_long"):
        return f"must have at most {context['max_length']} {_unit(kind)}"
    if kind == "string_pattern_mismatch":
        return f"must be of the form {context['pattern']}"
    if kind in ("value_error", "assertion_error"):  # a validator of ours
        return re.sub(r"^(Value|Assertion) error, ", "", problem["msg"])
    words = re.sub(r"^input should ", "must ", problem["msg"][:1].lower() + problem["msg"][1:])
    return words.replace("invalid JSON: ", "not JSON: ")


def _shorten(bound: Any) -> Any:
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


def _unit(kind: str) -> str:
    return "characters" if kind.startswith("string") else "items"


def _name_kind(problem: ErrorDetails) -> str:
    return _KINDS[problem["type"]].format(**problem.get("ctx", {}))


def _near(kind: Any, place: Location) -> str:
    """What an unknown key was probably meant to be, looked up in the models it may stand in."""
    if not place:
        return ""
    fields = [each for model in _models_at(kind, place[:-1]) for each in model.model_fields.items()]
    return did_you_mean(str(place[-1]), {field.alias or name for name, field in fields})


def _models_at(kind: Any, location: Location) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if not location:
            return [kind]
        written = {field.alias or name: field for name, field in kind.model_fields.items()}
        field = written.get(str(location[0]))
        if field is not None:
            return _models_at(field.annotation, location[1:])
        return [kind]
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType, typing.Annotated):
        tagged = [arg for arg in args if location and _is_tagged(arg, location[0])]
        if tagged:
            return _models_at(tagged[0], location[1:])
        return [model for arg in args for model in _models_at(arg, location)]
    if origin is not None and args and location:  # dict[str, X], list[X], tuple[X, ...]
        inner = args[1] if issubclass(origin, dict) else args[0]
        return _models_at(inner, location[1:])
    return []


def _is_tagged(kind: Any, tag: int | str) -> bool:
    """True when one of the model's fields can be nothing but `tag`: it is chosen by that word."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return False
    return any(typing.get_args(field.annotation) == (tag,) for field in kind.model_fields.values())
