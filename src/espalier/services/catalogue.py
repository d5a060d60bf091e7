"""Names for what pipelines make: `dataset:support@v4` is one artifact for ever, the same artifact the same version.

What a pipeline makes gets its version here, after the fact, by the name on its manifest; so publishing twice changes
nothing and a cached run publishes what it reuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.ids import now_ms
from espalier.core.refs import Ref
from espalier.core.types import Artifact, Prompt, Spec

if TYPE_CHECKING:
    from espalier.store.store import Store


class DatasetVersion(Spec):
    """One immutable version of a dataset."""

    name: str
    version: int
    digest: str  # the artifact
    created_ms: int
    created_by: str
    run: str = ""

    @property
    def ref(self) -> str:
        return f"dataset:{self.name}@v{self.version}"


def publish_dataset(store: Store, artifact: Artifact, name: str, actor: str) -> DatasetVersion:
    """The version `artifact` has under `name`: the one it has already, or the next number."""
    with store.transaction():
        for known in list_dataset_versions(store, name):
            if known.digest == artifact.digest:
                return known
        made = DatasetVersion(
            name=name, version=store.records.next_version("dataset", name), digest=artifact.digest, created_ms=now_ms(),
            created_by=actor, run=artifact.made_by,
        )  # fmt: skip
        store.records.put(f"dataset:{name}", f"v{made.version}", made)
        store.records.set_pointer(f"dataset:{name}@latest", f"v{made.version}", actor=actor)
        store.audit.append(actor, "datasets.publish", made.ref, {"digest": artifact.digest})
    return made


def list_dataset_versions(store: Store, name: str) -> Sequence[DatasetVersion]:
    """The newest first; empty for a name nobody used."""
    return store.records.list(f"dataset:{name}", DatasetVersion, limit=10_000)


def list_dataset_names(store: Store) -> list[str]:
    """Every name with at least one version."""
    names = (pointer.name.removeprefix("dataset:") for pointer in store.records.list_pointers("dataset:"))
    return [name.removesuffix("@latest") for name in names if name.endswith("@latest")]


def find_dataset(store: Store, text: str) -> DatasetVersion:
    """`support`, `dataset:support@v4`, `dataset:support@TAG` or `dataset:support@sha256:...`.

    Raises InvalidInput, NotFound.
    """
    ref = Ref.parse(text, kind="dataset")
    versions = list_dataset_versions(store, ref.name)
    tagged = store.records.find_pointer(f"dataset:{ref.name}@{ref.selector}") if ref.selector != "latest" else None
    for version in versions:
        selectors = ("latest", f"v{version.version}", f"sha256:{version.digest}")
        if ref.selector in selectors or (tagged and tagged.target == f"v{version.version}"):
            return version
    if versions:
        tags = "".join(f", {tag}" for tag in list_dataset_tags(store, ref.name))
        raise NotFound(f"no {ref}", hint=f"dataset:{ref.name} has v1 to v{versions[0].version}{tags}")
    names = ", ".join(list_dataset_names(store)) or "none yet: `espalier data build RECIPE` makes one"
    raise NotFound(f"no dataset {ref.name!r}", hint=f"datasets: {names}")


def list_dataset_tags(store: Store, name: str) -> dict[str, str]:
    """Where each tag of a dataset points: {"golden": "v3"}."""
    pointers = store.records.list_pointers(f"dataset:{name}@")
    found = {pointer.name.partition("@")[2]: pointer.target for pointer in pointers}
    return {tag: target for tag, target in found.items() if tag != "latest"}


def tag_dataset(store: Store, text: str, tag: str, actor: str, *, expect: str = "") -> DatasetVersion:
    """Point `tag` at a version; with `expect`, only if it points there now.

    Raises InvalidInput for what is no tag, NotFound, and Conflict when someone moved it.
    """
    from espalier.store.records import ANY

    version = find_dataset(store, text)
    named = Ref.parse(f"dataset:{version.name}@{tag}")
    if named.version is not None or tag == "latest" or tag.startswith("sha256:"):
        raise InvalidInput(f"{tag!r} cannot be a tag", hint="use a word such as golden")
    with store.transaction():
        store.records.set_pointer(
            f"dataset:{version.name}@{tag}", f"v{version.version}", expect=expect or ANY, actor=actor
        )
        store.audit.append(actor, "datasets.tag", version.ref, {"tag": tag})
    return version


def publish_prompt(store: Store, artifact: Artifact, actor: str) -> Prompt:
    """Save the prompt an artifact holds under its name; remembers which artifact a version came from."""
    from espalier.prompts.catalog import read_prompt, save_prompt

    prompt = save_prompt(store, read_prompt(store.artifacts.materialise(artifact.digest)), actor=actor)
    store.records.set_pointer(_artifact_pointer(prompt), artifact.digest, actor=actor)
    return prompt


def find_prompt_artifact(store: Store, text: str) -> str:
    """The artifact of a prompt version; one saved by hand is made into an artifact now. Raises NotFound."""
    from tempfile import TemporaryDirectory

    from espalier.prompts.catalog import get_prompt, write_prompt

    prompt = get_prompt(store, text)
    known = store.records.find_pointer(_artifact_pointer(prompt))
    if known is not None:
        return known.target
    with TemporaryDirectory() as folder:
        write_prompt(Path(folder), prompt.model_copy(update={"version": 0}))
        artifact = store.artifacts.put("prompt", Path(folder), {"name": prompt.name})
    store.records.set_pointer(_artifact_pointer(prompt), artifact.digest)
    return artifact.digest


def _artifact_pointer(prompt: Prompt) -> str:
    return f"artifact:{prompt.ref}"
