"""From a model's name to its folder, and from a folder to its digest. Imports no torch and opens no network by itself.

    builtin:NAME       shipped in the wheel under espalier/models/NAME
    path:DIR           a folder in the Hugging Face layout
    hf:OWNER/NAME      a snapshot in the local Hub cache; fetched by huggingface_hub only when `fetch` is true

A snapshot's revision may be pinned: `hf:OWNER/NAME@REVISION`. Knows the files of a base, not what is in them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from espalier.core.errors import InvalidInput, MissingExtra, NotFound, UnsupportedModel, did_you_mean
from espalier.core.ids import digest_of

QUANTISED = "espalier_quantised"  # in the config.json of a base that is stored quantised (nn/quantisedbase.py)
_PACKED = (".weight.codes", ".weight.largest", ".weight.scales", ".weight.offset")  # what such a weight consists of
SCHEMES = ("builtin", "path", "hf")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# What a base may consist of. No pickle (*.bin, *.pt) and no Python file is ever fetched or opened.
_FETCHED = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "LICENSE*", "README*")
# What decides the logits and where an answer ends; tokenizer and template have digests of their own.
_DIGESTED = ("config.json", "generation_config.json")


def locate_base(spec: str, *, fetch: bool = True) -> Path:
    """The folder of `spec`, holding at least config.json and safetensors weights.

    `fetch=False` never leaves the machine. Raises InvalidInput (not a model name), NotFound (naming the path tried),
    UnsupportedModel (weights in pickle only).
    """
    scheme, colon, rest = spec.partition(":")
    if not colon or not rest or scheme not in SCHEMES:
        raise InvalidInput(
            f"{spec!r} does not name a base model",
            hint="write builtin:seedling, path:DIR or hf:OWNER/NAME",
        )
    if scheme == "hf":
        folder = _find_snapshot(rest, fetch=fetch)
    else:
        folder = _find_builtin(rest) if scheme == "builtin" else _find_folder(rest)
    return _check_folder(folder, spec)


def list_builtins() -> list[str]:
    """Names of the bases shipped in this installation."""
    models = _builtin_root()
    return sorted(path.parent.name for path in models.glob("*/config.json")) if models.is_dir() else []


def list_weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a base, by name."""
    return sorted(folder.glob("*.safetensors"))


def anchor_base(spec: str, folder: Path) -> str:
    """`path:DIR` with DIR made absolute, counted from `folder`; any other name as it is."""
    scheme, _, rest = spec.partition(":")
    return f"path:{(folder / rest).resolve()}" if scheme == "path" and rest else spec


def list_base_files(spec: str) -> list[Path]:
    """Every file that decides what the base answers: weights, configuration, tokenizer, template.

    Nothing is fetched. Raises what `locate_base` raises.
    """
    folder = locate_base(spec, fetch=False)
    patterns = ("*.safetensors", "*.json", "*.jinja")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def count_parameters(folder: Path) -> int:
    """Parameters as stored (tied ones once), from the safetensors headers alone; of a quantised base, its weights."""
    return sum(_count_weights(name, entry) for name, entry in _named_tensors(folder))


def count_held_bytes(folder: Path, item_bytes: int) -> int:
    """What the weights take in memory in a type of `item_bytes`; quantised ones stay as they are stored."""
    sizes = {"I8": 1, "U8": 1, "F32": 4}
    return sum(
        math.prod(entry["shape"]) * (sizes.get(entry["dtype"], item_bytes) if name.endswith(_PACKED) else item_bytes)
        for name, entry in _named_tensors(folder)
    )


def list_tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every stored tensor's shape by its name, read from the safetensors headers alone."""
    return {name: tuple(entry["shape"]) for name, entry in _named_tensors(folder)}


def name_stored_dtype(folder: Path) -> str:
    """The number type most of a base's weights are stored in, as torch names it: float32, bfloat16, float16."""
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    counts: dict[str, int] = {}
    for entry in _stored_tensors(folder):
        counts[entry["dtype"]] = counts.get(entry["dtype"], 0) + math.prod(entry["shape"])
    most = max(counts, key=lambda name: (counts[name], name))
    if most not in names:
        raise UnsupportedModel(
            f"the weights in {folder} are stored as {most}", hint="floating-point weights are needed"
        )
    return names[most]


def read_quantised(folder: Path) -> str:
    """How the weights in a base's folder are quantised: nf4, int8; none for one as it was trained."""
    config = json.loads((folder / "config.json").read_bytes())
    return str((config.get(QUANTISED) or {}).get("scheme", "none"))


def digest_base(folder: Path) -> str:
    """sha256 (hex) over names and contents of the files that decide a base's logits: weights and configuration.

    A file is hashed once per process and (path, size, mtime): sha256 runs at about 1.5 GB/s, faster than loading.
    """
    names = [folder / name for name in _DIGESTED if (folder / name).exists()]
    return digest_of({path.name: digest_file(path) for path in [*names, *list_weight_files(folder)]})


def digest_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    stat = path.stat()
    return _digest_file(path.resolve(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _digest_file(path: Path, size_bytes: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stored_tensors(folder: Path) -> Iterator[dict[str, Any]]:
    return (entry for _, entry in _named_tensors(folder))


def _count_weights(name: str, entry: dict[str, Any]) -> int:
    count: int = math.prod(entry["shape"])
    if not name.endswith(_PACKED):
        return count
    return count * (2 if entry["dtype"] == "U8" else 1) if name.endswith(".codes") else 0  # U8: two to a byte


def _named_tensors(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in list_weight_files(folder):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        yield from ((name, entry) for name, entry in header.items() if name != "__metadata__")


def _builtin_root() -> Path:
    return Path(str(importlib.resources.files("espalier"))) / "models"


def _find_builtin(name: str) -> Path:
    folder = _builtin_root() / name
    if name not in list_builtins():
        raise NotFound(
            f"no built-in base {name!r}: {folder / 'config.json'} is not there",
            hint=did_you_mean(name, list_builtins()) or "reinstall espalier, or use path:DIR or hf:OWNER/NAME",
        )
    return folder


def _find_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise NotFound(
            f"no folder {folder.absolute()}",
            hint="path: takes a folder with config.json, tokenizer.json and *.safetensors",
        )
    return folder


def _find_snapshot(name: str, *, fetch: bool) -> Path:
    repo, _, revision = name.partition("@")
    if not _HUB_NAME.fullmatch(repo):
        raise InvalidInput(f"hf:{name} is not OWNER/NAME", hint="write hf:OWNER/NAME, or hf:OWNER/NAME@REVISION")
    cache = _hub_cache() / f"models--{repo.replace('/', '--')}"
    found = _cached_snapshot(cache, revision or "main")
    if found is not None:
        return found
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    if not fetch or offline:
        raise NotFound(
            f"hf:{name} is not on this machine: no snapshot under {cache}",
            hint=f"where there is a network: `hf download {repo}`; then copy that folder here, or use path:DIR",
        )
    return _fetch_snapshot(repo, revision, cache)


def _fetch_snapshot(repo: str, revision: str, cache: Path) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise MissingExtra("downloading needs huggingface_hub", hint="pip install huggingface_hub") from error
    try:
        folder = snapshot_download(repo, revision=revision or None, allow_patterns=list(_FETCHED))
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise NotFound(
            f"hf:{repo} could not be fetched ({reason}), and there is no snapshot under {cache}",
            hint=f"check the name and the network, or `hf download {repo}` elsewhere and use path:DIR",
        ) from error
    return Path(folder)


def _hub_cache() -> Path:
    # The variables huggingface_hub reads, in its order; read here so that looking needs no import of it.
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def _cached_snapshot(cache: Path, revision: str) -> Path | None:
    pointer = cache / "refs" / revision
    commit = pointer.read_text("utf-8").strip() if pointer.is_file() else revision
    folder = cache / "snapshots" / commit
    return folder if (folder / "config.json").exists() else None


def _check_folder(folder: Path, spec: str) -> Path:
    if not (folder / "config.json").is_file():
        raise NotFound(f"{spec}: {folder / 'config.json'} is not there", hint="a base is a folder in the Hub's layout")
    if not list_weight_files(folder):
        pickles = [path.name for path in _pickles(folder)]
        if pickles:
            raise UnsupportedModel(
                f"{spec}: its weights are pickle files ({', '.join(pickles[:3])}), which can run code when opened",
                hint="convert them to safetensors on a machine you can lose, and point path: at the result",
            )
        raise NotFound(f"{spec}: no *.safetensors in {folder}", hint="the download may be incomplete: fetch it again")
    return folder


def _pickles(folder: Path) -> Iterable[Path]:
    return sorted(path for suffix in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{suffix}"))
