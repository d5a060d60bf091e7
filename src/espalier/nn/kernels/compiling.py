"""The compiled kernels: found in the user's cache, or compiled at first use, or not there, with the reason.

One shared library of the C sources beside this file, built for this very CPU by the compiler at hand. Its folder is
named by a digest of sources, flags, compiler and CPU, so that nothing stale is ever loaded and machines that share a
home do not share machine code. Everything here may fail: without a compiler, without a folder to write to, or with
ESPALIER_KERNELS=off in the environment, callers compute in plain torch. Knows no kernel.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SWITCH = "ESPALIER_KERNELS"

_SOURCES = Path(__file__).parent / "sources"
_UNITS = ("attention.c", "rows.c", "logits.c", "step.c", "crew.c")
# No -ffast-math: what is NaN or infinite must stay so, or a run that diverges would not be noticed.
_FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread")
_TUNINGS = (("-march=native",), ("-mcpu=native",), ())  # the first that the compiler takes
_TIMEOUT_S = 300
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Kernels:
    """The library, or None, and in words what it was built by and for, or why there is none."""

    library: ctypes.CDLL | None
    words: str


def kernels_in_use() -> tuple[str, str]:
    """("compiled", by which compiler for which vectors) or ("torch", why not): it decides a result's last bits."""
    found = kernels()
    return ("torch" if found.library is None else "compiled"), found.words


def kernels() -> Kernels:
    """The kernels of this process; the first call compiles them where this machine has not done so yet."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0", "no"):
        return Kernels(None, f"{SWITCH} is off")
    with _lock:
        return _load()


@cache
def _load() -> Kernels:
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        return Kernels(None, "no C compiler: neither cc, gcc nor clang is on the PATH")
    try:
        version = _run([compiler, "--version"]).splitlines()[0]
        built = _build(compiler, version)
        library = ctypes.CDLL(str(built))  # a CDLL's functions run without the interpreter's lock
        lanes, pairs = divmod(library.espalier_vectors(), 2)
    except (OSError, IndexError, AttributeError, subprocess.SubprocessError) as error:
        return Kernels(None, f"{compiler}: {_first_line(error)}")
    return Kernels(library, f"{version}; {lanes} floats to a vector{', products of bf16 pairs' if pairs else ''}")


def _build(compiler: str, version: str) -> Path:
    """The library's path. Written beside its place and renamed, so several processes may build it at once."""
    sources = sorted(path for path in _SOURCES.iterdir() if path.suffix in (".c", ".h"))
    digest = hashlib.sha256(repr((_FLAGS, _TUNINGS, _UNITS, version, _describe_cpu())).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    place = _cache_folder() / digest.hexdigest()[:32] / "kernels.so"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = Path(folder) / "kernels.so"
        _compile(compiler, made)
        made.replace(place)
    return place


def _compile(compiler: str, made: Path) -> None:
    units = [str(_SOURCES / unit) for unit in _UNITS]
    for tuning in _TUNINGS:
        try:
            _run([compiler, *_FLAGS, *tuning, "-o", str(made), *units, "-lm"])
            return
        except subprocess.CalledProcessError:
            if not tuning:
                raise


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    return done.stdout


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "espalier" / "kernels"


def _describe_cpu() -> str:
    """The instructions this CPU has, as the system tells them."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()} {platform.processor()}"
    kept = ("model name", "flags", "Features", "CPU part")
    lines = info.read_text("utf-8", errors="replace").split("\n\n", 1)[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(kept))


def _first_line(error: BaseException) -> str:
    said = getattr(error, "stderr", None) or str(error) or type(error).__name__
    return str(said).strip().splitlines()[0][:200]
