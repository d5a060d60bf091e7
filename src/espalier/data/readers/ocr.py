"""Scanned pages through the `tesseract` program, where the machine has it. By pipes alone: nothing is written to disk.

Does not know PDF: it is given the grey pixels of a page.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from typing import Any

from espalier.core.errors import InvalidInput

DPI = 200
PAGE_TIMEOUT_S = 60
MAX_PAGES = 200
MAX_SIDE_PIXELS = 8_000
MAX_LANGUAGES = 4


def find_tesseract() -> str:
    """The program's path; empty when there is none."""
    return shutil.which("tesseract") or ""


def describe_tesseract() -> str:
    """`tesseract 5.3.0 eng`; empty where there is none. What was read without it is to be read again with it."""
    program = find_tesseract()
    return _describe(program) if program else ""


@functools.cache
def _describe(program: str) -> str:
    told = subprocess.run([program, "--version"], capture_output=True, timeout=PAGE_TIMEOUT_S, check=False)
    first = (told.stdout or told.stderr).decode("utf-8", "replace").split("\n")[0].strip()
    return f"{first} {'+'.join(languages_of(program))}"


def recognise(pixels: bytes, width: int, height: int) -> str:
    """The text on a page of `width` x `height` grey pixels (one byte each, top row first).

    Raises InvalidInput when tesseract fails or takes longer than PAGE_TIMEOUT_S.
    """
    program = find_tesseract()
    command = [program, "stdin", "stdout", "-l", "+".join(languages_of(program)), "--dpi", str(DPI), "--psm", "3"]
    picture = b"P5 %d %d 255\n" % (width, height) + pixels
    try:
        done = subprocess.run(command, input=picture, capture_output=True, timeout=PAGE_TIMEOUT_S, env=_environment())
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"tesseract took more than {PAGE_TIMEOUT_S} s for a page") from None
    except OSError as error:
        raise InvalidInput(f"tesseract did not start: {error.strerror}") from None
    if done.returncode:
        raise InvalidInput(f"tesseract failed: {done.stderr.decode('utf-8', 'replace').strip()[-200:]}")
    lines = done.stdout.decode("utf-8", "replace").replace("\f", "").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def render(pdf: Any, index: int) -> tuple[bytes, int, int]:
    """A page of a pypdfium2 document as grey pixels, width and height."""
    page = pdf[index]
    try:
        width, height = page.get_size()
        scale = min(DPI / 72, MAX_SIDE_PIXELS / max(width, height, 1))
        bitmap = page.render(scale=scale, grayscale=True)
        try:
            rows = memoryview(bitmap.buffer).cast("B")
            pixels = b"".join(rows[y * bitmap.stride :][: bitmap.width] for y in range(bitmap.height))
            return pixels, bitmap.width, bitmap.height
        finally:
            bitmap.close()
    finally:
        page.close()


@functools.cache
def languages_of(program: str) -> tuple[str, ...]:
    """The languages installed for tesseract, English first: who installs one wants it read."""
    listed = subprocess.run(
        [program, "--list-langs"], capture_output=True, timeout=PAGE_TIMEOUT_S, env=_environment(), check=False
    )
    names = [line.strip() for line in listed.stdout.decode("utf-8", "replace").split("\n")[1:]]
    languages = sorted({name for name in names if name and name not in ("osd", "equ") and "/" not in name})
    ordered = sorted(languages, key=lambda name: name != "eng")
    return tuple(ordered[:MAX_LANGUAGES]) or ("eng",)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_THREAD_LIMIT": "1"}
