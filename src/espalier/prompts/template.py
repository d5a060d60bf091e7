"""Jinja templates as chat messages: their variables found without running them, their errors with a line.

A prompt is two templates, `system` (may be empty) and `template` (the user turn). Text is never escaped: a prompt is no
HTML. The sandbox keeps a template away from Python's internals; it does not meter its running time. Does not know where
prompts are kept, nor how a model writes turns down as tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from espalier.core.errors import InvalidInput, did_you_mean
from espalier.core.ids import digest_of
from espalier.core.types import Example, Message, Prompt
from espalier.core.types.examples import Role

# What `variables_of` calls the question of an example; a prompt that uses nothing else passes questions through.
INPUT = "input"

_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
for _random in ("lipsum", "random"):  # the same variables give the same messages
    _environment.globals.pop(_random, None)
    _environment.filters.pop(_random, None)
_FILE_NODES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def make_prompt(name: str, template: str, system: str = "", *, note: str = "", source: str = "") -> Prompt:
    """A prompt of version 0, not saved yet: its variables found, its digest taken.

    `source` is the file the template stands in, for errors. Raises InvalidInput with the line of what is wrong.
    """
    if not template.strip():
        raise InvalidInput("the template is empty", where=source, hint="write at least {{ input }}")
    variables = {*find_variables(template, source or "template"), *find_variables(system, "system")}
    return Prompt(
        name=name,
        version=0,
        template=template,
        system=system,
        variables=tuple(sorted(variables)),
        digest=digest_of({"template": template, "system": system}),
        note=note,
    )


def find_variables(template: str, source: str = "template") -> tuple[str, ...]:
    """The names a template reads from outside, sorted. Raises InvalidInput("source:line: ...")."""
    try:
        tree = _environment.parse(template)
        variables = meta.find_undeclared_variables(tree)
    except TemplateSyntaxError as error:
        hint = "see https://jinja.palletsprojects.com/templates"
        raise InvalidInput(str(error.message), where=f"{source}:{error.lineno}", hint=hint) from None
    for node in tree.find_all(_FILE_NODES):
        raise InvalidInput(
            f"{type(node).__name__.lower()} of another template", where=f"{source}:{node.lineno}",
            hint="a prompt version stands alone: put the text in it",
        )  # fmt: skip
    return tuple(sorted(variables))


def render(prompt: Prompt, variables: Mapping[str, str], shots: Sequence[Example] = ()) -> list[Message]:
    """The system turn (when there is one), a user and an assistant turn for each shot, and the user turn.

    A shot's question goes through the same template. Raises InvalidInput naming every missing variable, or the line at
    which the template fails.
    """
    messages = []
    if system := _fill(prompt, "system", variables):
        messages.append(Message("system", system))
    for shot in shots:
        messages.append(Message("user", _fill(prompt, "template", variables_of(shot))))
        messages.append(Message("assistant", reference_of(shot)))
    messages.append(Message("user", _fill(prompt, "template", variables)))
    return messages


def render_case(prompt: Prompt, example: Example, shots: Sequence[Example] = ()) -> list[Message]:
    """`render` with the variables of an example: the question asked of a model when it is evaluated.

    Earlier turns of the example stand, as they are, between the shots and the last question; its own system turn is
    used when the prompt has none.
    """
    question = _question(example)
    messages = render(prompt, variables_of(example), shots)
    if not prompt.system and question[0].role == "system":
        messages.insert(0, question[0])
    history = [turn for turn in question[:-1] if turn.role != "system"]
    return [*messages[:-1], *history, messages[-1]]


def variables_of(example: Example) -> dict[str, str]:
    """`input`: the last user turn before the reference answer; and the example's tags by their names."""
    return {**example.tags, INPUT: _question(example)[-1].content}


def reference_of(example: Example) -> str:
    """The answer an example holds: its last turn. Raises InvalidInput when that is not the assistant's."""
    if not example.messages or example.messages[-1].role != "assistant":
        raise InvalidInput(
            "the last turn is not an assistant's answer", where=f"example {example.id}",
            hint="an example shown or scored ends with its reference answer",
        )  # fmt: skip
    return example.messages[-1].content


def _question(example: Example) -> list[Message]:
    reference_of(example)
    question = example.messages[:-1]
    role: Role | None = question[-1].role if question else None
    if role != "user":
        raise InvalidInput(
            f"what stands before the answer is {role or 'nothing'}, not a user turn", where=f"example {example.id}",
            hint="an example shown or scored asks in its last but one turn",
        )  # fmt: skip
    return question


def _fill(prompt: Prompt, part: str, variables: Mapping[str, str]) -> str:
    text: str = getattr(prompt, part)
    if not text:
        return ""
    label = f"{prompt.name} {part}"
    try:
        # A name of its own in the code object is how the failing line is found again in the traceback.
        code = _environment.compile(text, filename=label)
        template = _environment.template_class.from_code(_environment, code, _environment.make_globals(None))
        return template.render(variables)
    except UndefinedError as error:
        missing = sorted(set(prompt.variables) - set(variables))
        if not missing:
            raise InvalidInput(str(error.message), where=_place(error.__traceback__, label)) from None
        hint = did_you_mean(missing[0], variables) or f"give {missing[0]}=..."
        raise InvalidInput(
            f"no value for {', '.join(missing)}", where=_place(error.__traceback__, label), hint=hint
        ) from None  # fmt: skip
    except (TemplateError, TypeError, ArithmeticError, ValueError, OverflowError) as error:
        raise InvalidInput(str(error), where=_place(error.__traceback__, label), hint="mend the template") from None


def _place(trace: TracebackType | None, label: str) -> str:
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == label:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{label}:{line}" if line else label
