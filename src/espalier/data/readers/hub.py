"""Dataset folders as the Hugging Face hub lays them out: fetched when named `hf:OWNER/NAME`, told by their card.

Does not know formats; the data files are found like any others.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from espalier.core.errors import InvalidInput, NotFound

CARD = "README.md"
_NAME = re.compile(r"^hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?$")
_FRONT = re.compile(rb"\A---\s*\n.*?\n---\s*(\n|\Z)", re.DOTALL)
_MAX_CARD_BYTES = 1 << 20


def fetch_dataset(place: str, cache: Path) -> Path:
    """The folder of `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`, in the cache.

    Raises InvalidInput for another form, NotFound where the hub has no such dataset or cannot be reached.
    """
    match = _NAME.match(place)
    if not match:
        raise InvalidInput(f"not a dataset on the hub: {place!r}", hint="write hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    repo, revision = match["repo"], match["revision"]
    folder = cache / "hub" / repo.replace("/", "--") / (revision or "main").replace("/", "--")
    # Before the import, which reads it: nothing is reported to anybody.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        # Into a folder of its own: the hub's own cache is links out of the folder, which sources refuse.
        snapshot_download(repo, repo_type="dataset", revision=revision, local_dir=folder)
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if folder.is_dir() and any(folder.iterdir()) and isinstance(error, LocalEntryNotFoundError | ConnectionError):
            return _mark_used(folder)  # fetched before, and offline now
        raise NotFound(f"{place} cannot be fetched: {error}"[:300], hint="check the name and the network") from error
    return _mark_used(folder)


def _mark_used(folder: Path) -> Path:
    """The hub takes a file of a later time for one that was edited: so a file of ours says when it was used."""
    (folder / ".used").touch()
    return folder


def has_card(folder: Path) -> bool:
    """Whether the folder's README.md is a dataset card: metadata in YAML at its head."""
    path = folder / CARD
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return bool(_FRONT.match(stream.read(_MAX_CARD_BYTES)))
