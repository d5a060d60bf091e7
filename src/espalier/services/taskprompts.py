"""A recipe's task may name prompts of the catalogue; here their templates take the place of their names.

So the recipe that is built, and the manifest, hold the text itself: what was built is what they say, wherever the
prompt's aliases point later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from espalier.core.types import Spec
    from espalier.store.store import Store


def fill_prompts(store: Store, task: Any) -> Any:
    """The task with every `prompt:NAME@vN` replaced by that prompt's template.

    A prompt's system template becomes the task's, where the task has none of its own. Raises NotFound, InvalidInput.
    """
    from espalier.data.tasks.fields import PROMPT
    from espalier.prompts.catalog import get_prompt

    named = {name: get_prompt(store, ref) for name, ref in _texts(task).items() if ref.startswith(PROMPT)}
    changes = {name: as_template(prompt.template) for name, prompt in named.items()}
    system = next((prompt.system for prompt in named.values() if prompt.system), "")
    if system and _has_no_system(task):
        changes["system"] = as_template(system)
    return type(task).model_validate({**task.model_dump(), **changes}) if changes else task


def as_template(text: str) -> str:
    """A template that says `text`, also where it has no variable: a task would take that for a column's name."""
    from espalier.data.tasks.fields import is_template

    return text if is_template(text) else f"{{% raw %}}{text}{{% endraw %}}"


def _texts(task: Spec) -> dict[str, str]:
    return {name: value for name, value in task.model_dump().items() if isinstance(value, str)}


def _has_no_system(task: Spec) -> bool:
    field = type(task).model_fields.get("system")
    return field is not None and getattr(task, "system", None) == field.default
