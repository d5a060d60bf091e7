"""`espalier doctor`: what this machine has, what it lacks, and what to do about it.

Looks without loading: no torch, no model, no network but loopback.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from espalier.core.errors import EspalierError, NotFound
from espalier.core.operations import broken_operations, load_operations, operation
from espalier.core.types import Spec
from espalier.services.context import Context

_PYTHON = (3, 11)
_MIN_MEMORY_BYTES = 3 << 30
_MIN_DISK_BYTES = 2 << 30
# Feature of the CPU -> what it is good for.
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_NVIDIA_SMI_TIMEOUT_S = 10
# Module -> the extra that brings it, and what it is for.
_EXTRAS = {
    "nicegui": ("web", "the pages"),
    "boto3": ("aws", "blobs in S3"),
    "psycopg": ("postgres", "records in PostgreSQL"),
    "presidio_analyzer": ("presidio", "names and addresses in texts"),
    "peft": ("peft", "several adapters made one"),
}


class CheckMachine(Spec):
    """What to check for."""

    base: str = Field("builtin:seedling", description="the base model that must be on this machine")


class Check(Spec):
    """One thing looked at. `next` says what to do about it, and is empty when nothing is wrong."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    next: str = ""


class MachineReport(Spec):
    """Everything looked at; `exit_code` is 1 when something keeps Espalier from working."""

    checks: tuple[Check, ...]
    exit_code: int = 0

    def to_text(self) -> str:
        """For a terminal: a mark, what was found, and what to do."""
        marks = {"ok": "+", "warn": "!", "fail": "x"}
        wide = max(len(check.name) for check in self.checks)
        lines = []
        for check in self.checks:
            lines.append(f"{marks[check.status]} {check.name:<{wide}}  {check.found}")
            if check.next:
                lines.append(f"  {'':<{wide}}  next: {check.next}")
        bad = sum(check.status == "fail" for check in self.checks)
        return "\n".join([*lines, f"{bad} of {len(self.checks)} checks failed" if bad else "this machine will do"])


@operation("workspace.doctor", "GET /v1/workspace/doctor", role="admin")
def doctor(context: Context, request: CheckMachine) -> MachineReport:
    """Check this machine: Python, cores, memory, disk, GPU, optional packages, base model, port, workspace, store.

    Exits with 1 when something keeps Espalier from working here; a warning only costs speed or a feature.
    """
    checks = check_machine(context, request.base)
    return MachineReport(checks=checks, exit_code=int(any(check.status == "fail" for check in checks)))


def check_machine(context: Context, base: str) -> tuple[Check, ...]:
    """Every check, in the order a person would ask."""
    checks: list[Callable[[], Check | list[Check]]] = [
        _check_python,
        _check_cores,
        _check_cpu,
        _check_kernels,
        _check_memory,
        _check_gpu,
        lambda: _check_disk(context),
        _check_extras,
        _check_plugins,
        lambda: _check_base(base),
        lambda: _check_port(context),
        lambda: _check_workspace(context),
        lambda: _check_store(context),
    ]
    found: list[Check] = []
    for check in checks:
        result = check()
        found.extend(result if isinstance(result, list) else [result])
    return tuple(found)


def _check_python() -> Check:
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _PYTHON:
        return Check(name="python", status="fail", found=text, next="install Python 3.11 or newer")
    return Check(name="python", status="ok", found=text)


def _check_cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return Check(
            name="cores", status="warn", found=f"{cores}", next="two or more: the demo takes twice as long on one"
        )
    return Check(name="cores", status="ok", found=f"{cores}")


def _check_cpu() -> Check:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return Check(name="cpu", status="ok", found=platform.processor() or platform.machine())
    text = info.read_text("utf-8", errors="replace")
    flags = next((line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith("flags")), [])
    has = [flag for flag in _CPU_FLAGS if flag in flags]
    if "avx512_bf16" in has or "amx_bf16" in has:
        return Check(name="cpu", status="ok", found=", ".join(has))
    return Check(
        name="cpu",
        status="warn",
        found=", ".join(has) or "no vector extensions reported",
        next="nothing: training uses 32-bit floats here, since the CPU has no native bf16",
    )


def _check_kernels() -> Check:
    from espalier.nn.kernels.compiling import kernels_in_use

    which, words = kernels_in_use()
    if which == "compiled":
        return Check(name="kernels", status="ok", found=f"compiled: {words}")
    return Check(
        name="kernels",
        status="warn",
        found=f"plain torch: {words}",
        next="install a C compiler: training on the CPU is then several times faster",
    )


def _check_memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
    if memory.available < _MIN_MEMORY_BYTES:
        return Check(name="memory", status="warn", found=text, next="close other programs: the demo wants 3 GB")
    return Check(name="memory", status="ok", found=text)


def _check_gpu() -> Check:
    import subprocess

    program = shutil.which("nvidia-smi")
    if program is None:
        return Check(name="gpu", status="ok", found="none; the CPU does the work")
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_NVIDIA_SMI_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name="gpu", status="warn", found=f"nvidia-smi: {error}", next="check the driver")
    if done.returncode or not done.stdout.strip():
        return Check(
            name="gpu", status="warn", found="nvidia-smi finds no device", next="check the driver: run nvidia-smi"
        )
    return Check(name="gpu", status="ok", found="; ".join(done.stdout.strip().splitlines()))


def _check_disk(context: Context) -> Check:
    where = context.start if isinstance(context.found, NotFound) else context.found.root
    free = shutil.disk_usage(where).free
    text = f"{free / 1e9:.1f} GB free in {where}"
    if free < _MIN_DISK_BYTES:
        return Check(
            name="disk", status="warn", found=text, next="free some: bases, datasets and checkpoints want 2 GB"
        )
    return Check(name="disk", status="ok", found=text)


def _check_extras() -> list[Check]:
    checks = []
    for module, (extra, purpose) in _EXTRAS.items():
        if importlib.util.find_spec(module) is not None:
            found = f"{module} {importlib.metadata.version(module)}: {purpose}"
            checks.append(Check(name=f"[{extra}]", status="ok", found=found))
        else:
            hint = f"only for {purpose}: pip install 'espalier[{extra}]'"
            checks.append(Check(name=f"[{extra}]", status="warn", found="not installed", next=hint))
    return checks


def _check_plugins() -> Check:
    count = len(load_operations())
    broken = broken_operations()
    if broken:
        names = "; ".join(f"{name}: {why}" for name, why in broken.items())
        return Check(name="plug-ins", status="fail", found=names, next="reinstall what is named, or remove it")
    return Check(name="plug-ins", status="ok", found=f"{count} operations")


def _check_base(base: str) -> Check:
    from espalier.nn.locate import locate_base

    try:
        folder = locate_base(base, fetch=False)
    except EspalierError as error:
        return Check(name="base model", status="fail", found=error.message, next=error.hint)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return Check(name="base model", status="ok", found=f"{base}, {size / 1e6:.1f} MB of weights")


def _check_port(context: Context) -> Check:
    import socket

    serve = context.config.config.serve
    with socket.socket(socket.AF_INET6 if ":" in serve.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serve.host, serve.port))
        except OSError as error:
            return Check(
                name="port",
                status="warn",
                found=f"{serve.host}:{serve.port}: {error.strerror}",
                next="another server runs there already, or choose another: --set serve.port=0",
            )
    return Check(name="port", status="ok", found=f"{serve.host}:{serve.port} is free")


def _check_workspace(context: Context) -> Check:
    if isinstance(context.found, NotFound):
        return Check(name="workspace", status="warn", found=context.found.message, next=context.found.hint)
    import tempfile

    folder = context.found.folder
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        return Check(
            name="workspace", status="fail", found=f"{folder}: {error.strerror}", next="check its owner and its mode"
        )
    return Check(name="workspace", status="ok", found=str(context.found.root))


def _check_store(context: Context) -> Check:
    if isinstance(context.found, NotFound):
        return Check(name="store", status="ok", found="comes with a workspace")
    try:
        store = context.store
        store.audit.verify()
        found = "PostgreSQL" if store.database.is_postgres else "SQLite"
    except EspalierError as error:
        return Check(name="store", status="fail", found=error.message, next=error.hint or "check store.url")
    return Check(name="store", status="ok", found=f"{found}; the audit chain holds")
