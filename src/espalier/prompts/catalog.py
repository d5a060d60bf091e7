"""Prompts in the store: a version for every new content, and pointers for `latest`, aliases and digests.

Saving what a version already says gives that version back, so a pipeline may save on every run. Versions never change.
Knows records and pointers; does not know who serves or evaluates a prompt.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from espalier.core.errors import Conflict, DigestMismatch, InvalidInput, NotFound, did_you_mean
from espalier.core.ids import now_ms
from espalier.core.refs import Ref
from espalier.core.types import Prompt
from espalier.prompts.template import make_prompt
from espalier.store.disk import write_file
from espalier.store.records import ANY, Unset
from espalier.store.store import Store

KIND = "prompt"
PROMPT_FILE = "prompt.json"
_ALIASES_OF_OURS = ("latest",)


def save_prompt(store: Store, prompt: Prompt, *, actor: str = "local") -> Prompt:
    """Save the content of `make_prompt` as the next version of its name; the version that has it already, else.

    Raises InvalidInput for a bad name.
    """
    name = Ref.parse(prompt.name, kind=KIND).name
    by_digest = _pointer(name, f"sha256:{prompt.digest}")
    known = store.records.find_pointer(by_digest)
    if known is None:
        try:
            return _add_version(store, name, prompt, by_digest, actor)
        except Conflict:  # someone saved the same content just now
            known = store.records.get_pointer(by_digest)
    return _read_version(store, name, known.target)


def get_prompt(store: Store, ref: str) -> Prompt:
    """`prompt:name@v3`, `@alias`, `@sha256:...`, or the latest. Raises InvalidInput, NotFound with what there is."""
    parsed = Ref.parse(ref, kind=KIND)
    if parsed.version is not None:
        return _read_version(store, parsed.name, parsed.selector)
    pointer = store.records.find_pointer(_pointer(parsed.name, parsed.selector))
    if pointer is None:
        raise _missing(store, parsed)
    return _read_version(store, parsed.name, pointer.target)


def set_alias(store: Store, ref: str, alias: str, *, expect: str | Unset | None = ANY, actor: str = "local") -> Prompt:
    """Point `alias` at a version. `expect`: where it must point now ("v2", None = nowhere), else Conflict."""
    prompt = get_prompt(store, ref)
    named = Ref.parse(f"{KIND}:{prompt.name}@{alias}")
    if named.version is not None or alias in _ALIASES_OF_OURS or alias.startswith("sha256:"):
        raise InvalidInput(f"{alias!r} cannot be an alias", hint="use a word such as production")
    with store.transaction():
        store.records.set_pointer(_pointer(prompt.name, alias), f"v{prompt.version}", expect=expect, actor=actor)
        store.audit.append(actor, "prompts.alias", prompt.ref, {"alias": alias})
    return prompt


def list_prompts(store: Store) -> Sequence[Prompt]:
    """The latest version of every prompt, by name."""
    heads = [pointer for pointer in store.records.list_pointers(f"{KIND}:") if pointer.name.endswith("@latest")]
    return [_read_version(store, Ref.parse(head.name).name, head.target) for head in heads]


def list_versions(store: Store, name: str) -> Sequence[Prompt]:
    """Every version of a prompt, the newest first. Raises NotFound."""
    newest = get_prompt(store, f"{KIND}:{name}")
    return [_read_version(store, name, f"v{number}") for number in range(newest.version, 0, -1)]


def list_aliases(store: Store, name: str) -> dict[str, str]:
    """alias -> "vN", by alias; `latest` is among them."""
    found = store.records.list_pointers(f"{KIND}:{name}@")
    aliases = {pointer.name.partition("@")[2]: pointer.target for pointer in found}
    return {alias: target for alias, target in aliases.items() if not alias.startswith("sha256:")}


def diff_prompts(old: Prompt, new: Prompt) -> str:
    """A unified diff of the two, system turn and template; empty when they say the same."""
    lines = difflib.unified_diff(_as_lines(old), _as_lines(new), old.ref, new.ref, lineterm="")
    return "\n".join(lines)


def write_prompt(folder: Path, prompt: Prompt) -> None:
    """Write `prompt.json`, the content of a prompt artifact: what it says, not its version, nor when or by whom saved.

    So a prompt gives the same artifact before and after it is saved.
    """
    kept = prompt.model_dump(include={"name", "template", "system", "variables", "digest"})
    write_file(folder / PROMPT_FILE, json.dumps(kept, indent=1, ensure_ascii=False).encode() + b"\n")


def read_prompt(folder: Path) -> Prompt:
    """The prompt of an artifact's folder, as version 0. Raises NotFound, InvalidInput, DigestMismatch."""
    path = folder / PROMPT_FILE
    if not path.is_file():
        raise NotFound(f"no prompt at {folder}", hint="`espalier prompts` lists what there is")
    try:
        prompt = Prompt.model_validate({**json.loads(path.read_bytes()), "version": 0})
    except ValueError as error:
        raise InvalidInput(f"not a prompt: {error}", where=str(path)) from None
    if make_prompt(prompt.name, prompt.template, prompt.system).digest != prompt.digest:
        raise DigestMismatch(f"prompt {prompt.name} is not what its digest says", where=str(path))
    return prompt


def _pointer(name: str, selector: str) -> str:
    return f"{KIND}:{name}@{selector}"


def _add_version(store: Store, name: str, prompt: Prompt, by_digest: str, actor: str) -> Prompt:
    with store.transaction():
        number = store.records.next_version(KIND, name)
        saved = prompt.model_copy(update={"version": number, "created_ms": now_ms(), "created_by": actor})
        store.records.put(KIND, f"{name}@v{number}", saved)
        store.records.set_pointer(by_digest, f"v{number}", expect=None, actor=actor)
        store.records.set_pointer(_pointer(name, "latest"), f"v{number}", actor=actor)
        store.audit.append(actor, "prompts.save", saved.ref, {"digest": saved.digest})
    return saved


def _read_version(store: Store, name: str, selector: str) -> Prompt:
    return store.records.get(KIND, f"{name}@{selector}", Prompt)


def _missing(store: Store, ref: Ref) -> NotFound:
    aliases = list_aliases(store, ref.name)
    if aliases:
        return NotFound(f"prompt {ref.name} has no {ref.selector!r}", hint=did_you_mean(ref.selector, aliases))
    names = [prompt.name for prompt in list_prompts(store)]
    return NotFound(f"no prompt {ref.name}", hint=did_you_mean(ref.name, names) or "save one first")


def _as_lines(prompt: Prompt) -> list[str]:
    system = ["[system]", *prompt.system.splitlines(), ""] if prompt.system else []
    return [*system, "[user]", *prompt.template.splitlines()]
