"""Everything a recipe may name as a source, found: files, folders, globs, archives, S3, http(s), the hub.

The order places are named in never matters. Does not know formats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from espalier.core.errors import InvalidInput, NotFound
from espalier.data.readers.folder import list_files, list_sources, refuse_nothing
from espalier.data.readers.hub import CARD, fetch_dataset, has_card
from espalier.data.readers.licence import read_licence
from espalier.data.readers.plugin import known_suffixes
from espalier.data.readers.source import Found, Selection, SkippedFile, SourceFile
from espalier.data.readers.spec import SourceSpec

# Beside data they say where it comes from; they are not it.
ABOUT = re.compile(r"^(SOURCE\.md|(LICEN[CS]E|COPYING|NOTICE)(\.(md|txt|rst))?|dataset_infos?\.json)$")
_WILD = re.compile(r"[*?\[]")


def locate_sources(
    spec: SourceSpec, folder: Path, cache: Path, *, exclude: Iterable[str] = ()
) -> tuple[list[SourceFile], list[SkippedFile]]:
    """The sources a recipe in `folder` names, sorted by uri, and what is skipped, with the reasons.

    With one local place uris are paths below it; with several, each begins with its place as it is written. Remote
    files and members of archives are kept in `cache`.

    Raises NotFound for a place that is not there, InvalidInput when nothing can be read.
    """
    if not any(spec.paths):
        raise InvalidInput("no source is named", where="source.path", hint="write `source: {path: FOLDER}`")
    selection = Selection(
        known_suffixes(), spec.include, (*spec.exclude, *exclude), spec.max_file_bytes, cache, spec.max_ratio
    )
    found = Found()
    for place in sorted(set(spec.paths)):
        there = _locate(place, spec, folder, selection)
        if len(spec.paths) > 1 and "://" not in place:
            there = there.below(_prefix(place, folder))
        found.sources += there.sources
        found.skipped += there.skipped
    settled = found.settle()
    refuse_nothing(settled, ", ".join(spec.paths), selection)
    return settled.sources, settled.skipped


def list_local_files(spec: SourceSpec, folder: Path) -> list[Path]:
    """Every file of this machine that the spec chooses, readable or not: what a build's outcome depends on."""
    files: list[Path] = []
    for place in spec.paths:
        if place.startswith("urls:"):
            files.append(folder / place.removeprefix("urls:"))
        elif _WILD.search(place) and not (folder / place).exists():
            base, pattern = _split_glob(place)
            files += (path for path in (folder / base).glob(pattern) if path.is_file())
        elif "://" not in place and not place.startswith("hf:"):
            files += list_files(folder / place, spec.include, spec.exclude)
    return files


def list_folders(spec: SourceSpec, folder: Path) -> list[Path]:
    """The folders of this machine that the places are or lie in."""
    roots = [folder / place for place in spec.paths if "://" not in place]
    return [root if root.is_dir() else root.parent for root in roots]


def _locate(place: str, spec: SourceSpec, folder: Path, selection: Selection) -> Found:
    if place.startswith("s3://"):
        from espalier.data.readers.objects import list_objects, prefix_folder

        bucket, _, key = place.removeprefix("s3://").partition("/")
        there = list_objects(place, selection, spec.max_download_bytes)
        return there.below(f"s3://{bucket}/{prefix_folder(key)}")
    if place.startswith(("http://", "https://", "urls:")):
        from espalier.data.readers.address import list_addresses

        urls = _read_list(folder / place.removeprefix("urls:")) if place.startswith("urls:") else [place]
        return list_addresses(urls, selection, spec.max_download_bytes, allow_private=spec.allow_private)
    if place.startswith("hf:"):
        if selection.cache is None:
            raise InvalidInput("a dataset of the hub needs a cache folder", where=place)
        return _list_folder(fetch_dataset(place, selection.cache), selection)
    if "://" in place:
        raise InvalidInput(
            f"nothing is known of {place.split(':')[0]}://", where="source.path", hint="s3, http or https"
        )
    path = folder / place
    if _WILD.search(place) and not path.exists():
        return _list_glob(place, folder, selection)
    return _list_folder(path, selection) if path.is_dir() else list_sources(path, selection)


def _list_folder(root: Path, selection: Selection) -> Found:
    """A folder's files but those that tell about it, with the licence that those name."""
    found = list_sources(root, selection)
    card, told = has_card(root), read_licence(root)
    licence = told.spdx if told else ""
    kept = Found(skipped=found.skipped)
    for source in found.sources:
        if ABOUT.match(source.uri) or (card and source.uri == CARD):
            reason = "not data: it tells about the files beside it"
            kept.skipped.append(SkippedFile(uri=source.uri, reason=reason, sha256=source.sha256))
        else:
            kept.sources.append(replace(source, licence=licence) if licence else source)
    return kept


def _list_glob(place: str, folder: Path, selection: Selection) -> Found:
    base, pattern = _split_glob(place)
    root = folder / base
    if not root.is_dir():
        raise NotFound(f"no folder {root}", hint="check `source.path`; it is relative to the recipe's folder")
    paths = [
        path
        for path in sorted(root.glob(pattern))
        if not path.is_dir() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    if not paths:
        raise NotFound(f"no file matches {place}", hint="check `source.path`; it is relative to the recipe's folder")
    return list_sources(root, selection, paths)


def _split_glob(place: str) -> tuple[str, str]:
    """The part before the first component with a wildcard, and the rest."""
    parts = PurePosixPath(place).parts
    first = next(at for at, part in enumerate(parts) if _WILD.search(part))
    return str(PurePosixPath(*parts[:first])) if first else ".", str(PurePosixPath(*parts[first:]))


def _prefix(place: str, folder: Path) -> str:
    """What uris of this place begin with: never a path of the machine."""
    if place.startswith("hf:"):
        return f"{place}/"
    written = PurePosixPath(place)
    if _WILD.search(place) and not (folder / place).exists():
        written = PurePosixPath(_split_glob(place)[0])
    elif not (folder / place).is_dir():
        written = written.parent
    parts = [part for part in written.parts if part not in ("..", ".", "/")]
    if written.is_absolute():
        parts = parts[-1:]
    return "".join(f"{part}/" for part in parts)


def _read_list(path: Path) -> list[str]:
    if not path.is_file():
        raise NotFound(f"no file {path}", hint="`urls:FILE` names a text file with a URL a line")
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
