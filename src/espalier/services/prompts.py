"""Prompts: versions of the text around a case, saved, listed, shown and rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from espalier.core.operations import operation
from espalier.core.types import Prompt, Spec

if TYPE_CHECKING:
    from espalier.services.context import Context


class SavePrompt(Spec):
    """A prompt's content; the same content is the same version."""

    name: str = Field(description="name in the catalogue")
    template: str = Field(description="Jinja template of the user turn")
    system: str = Field("", description="Jinja template of the system turn; empty = none")
    note: str = Field("", description="why this version exists")


@operation("prompts.save", "POST /v1/prompts", positional=("name", "template"))
def save(context: Context, request: SavePrompt) -> Prompt:
    """Save a prompt version.

    Example:
        espalier prompts save triage 'Which team should answer? {{ input }}'
    """
    from espalier.prompts.catalog import save_prompt
    from espalier.prompts.template import make_prompt

    prompt = make_prompt(request.name, request.template, request.system, note=request.note)
    return save_prompt(context.store, prompt, actor=context.actor)


class ListPrompts(Spec):
    """Which prompts to list."""

    name: str = Field("", description="all versions of this prompt; empty = the newest version of each")


@operation("prompts.list", "GET /v1/prompts")
def list_all(context: Context, request: ListPrompts) -> list[Prompt]:
    """List prompts, or every version of one."""
    from espalier.prompts.catalog import list_prompts, list_versions

    store = context.store
    return list(list_versions(store, request.name) if request.name else list_prompts(store))


class NamePrompt(Spec):
    """Which version."""

    ref: str = Field(description="prompt:NAME@vN, NAME@alias, or just NAME for its newest version")


@operation("prompts.show", "GET /v1/prompts/show", positional=("ref",))
def show(context: Context, request: NamePrompt) -> Prompt:
    """Show a prompt version."""
    from espalier.prompts.catalog import get_prompt

    return get_prompt(context.store, request.ref)


class RenderPrompt(NamePrompt):
    """Which version, and what to fill in."""

    input: str = Field(description="the case: what {{ input }} stands for")


class Turn(Spec):
    role: str
    content: str


class Rendered(Spec):
    """The messages a model would be sent."""

    prompt: str
    messages: tuple[Turn, ...]


@operation("prompts.render", "POST /v1/prompts/render", positional=("ref",))
def render(context: Context, request: RenderPrompt) -> Rendered:
    """Show the messages a prompt version makes of a case."""
    from espalier.prompts.catalog import get_prompt
    from espalier.prompts.template import render as fill

    prompt = get_prompt(context.store, request.ref)
    messages = fill(prompt, {"input": request.input})
    return Rendered(prompt=prompt.ref, messages=tuple(Turn(role=m.role, content=m.content) for m in messages))
