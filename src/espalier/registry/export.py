"""A version as a folder to take elsewhere: an adapter's files as PEFT reads them or a whole model's as transformers
does, the card, and the record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from espalier.core.errors import Conflict, InvalidInput
from espalier.core.ids import make_id
from espalier.core.types import ModelVersion
from espalier.registry.card import make_card
from espalier.registry.versions import get_version
from espalier.store.disk import storage_errors, write_file
from espalier.store.store import Store

CARD_FILE = "README.md"  # where the Hub and PEFT look for a card
RECORD_FILE = "model-version.json"


def export_model(store: Store, ref: str, folder: Path, *, actor: str = "local") -> ModelVersion:
    """Copy what was trained of a version into `folder`, which must not exist yet; it appears whole or not at all.

    Raises InvalidInput for a version of which nothing was, Conflict when `folder` exists, DigestMismatch, StorageFull.
    """
    version = get_version(store, ref)
    made = version.adapter or version.made_base
    if not made:
        raise InvalidInput(f"{version.ref} is its base, {version.base}, and has no files of its own")
    if folder.exists():
        raise Conflict(f"{folder} exists", hint="name a folder that does not exist yet")
    source = store.artifacts.materialise(made)
    card = make_card(store, version.ref)
    arriving = folder.parent / f".{make_id('tmp')}"
    try:
        with storage_errors(folder):
            # Contents only: the store's files are read-only hard links, and a copy is the user's to change.
            shutil.copytree(source, arriving, copy_function=shutil.copyfile)
            write_file(arriving / CARD_FILE, card.encode())
            record = json.dumps(version.model_dump(mode="json"), indent=1, ensure_ascii=False)
            write_file(arriving / RECORD_FILE, record.encode() + b"\n")
            arriving.rename(folder)
    finally:
        shutil.rmtree(arriving, ignore_errors=True)
    store.audit.append(actor, "models.export", version.ref, {"adapter": version.adapter, "base": version.made_base})
    return version
