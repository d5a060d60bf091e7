"""Step `prompt.write`: a prompt's templates, checked, as an artifact that datasets and evaluations are made with."""

from __future__ import annotations

from pydantic import Field

from espalier.core.ports import StepContext
from espalier.core.step import step
from espalier.core.types import Spec


class PromptWriteSpec(Spec):
    """One prompt: what a case is turned into before a model sees it."""

    name: str = Field(description="name in the catalogue: prompt:NAME@vN")
    template: str = Field(description="Jinja template of the user turn, e.g. 'Summarise:\\n{{ document }}'")
    system: str = Field("", description="Jinja template of the system turn; empty = none")


@step("prompt.write", version=1, spec=PromptWriteSpec, outputs={"prompt": "prompt"})
def prompt_write(context: StepContext, spec: PromptWriteSpec) -> None:
    """Check a prompt's templates and keep them as an artifact."""
    from espalier.prompts.catalog import write_prompt
    from espalier.prompts.template import make_prompt

    write_prompt(context.output("prompt"), make_prompt(spec.name, spec.template, spec.system))
    context.describe("prompt", name=spec.name)
