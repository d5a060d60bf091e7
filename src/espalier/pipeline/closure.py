"""The code a step is made of: every first-party module its own module reaches by import, hashed.

The scan is static (nothing is imported) and transitive: imports inside functions count, those under `if
TYPE_CHECKING` do not; a module that names a plug-in group reaches all plug-ins of that group. First-party is
`espalier.*` and what does not stand in a site-packages folder; of third-party packages the version counts. A hash is
over the syntax tree, so comments and layout are free to change; docstrings are not, for a prompt may live in one.

Hashing whole modules rather than functions is what makes a result trustworthy: a changed dict, method or default is in
it. Not seen: modules imported by a name computed at run time.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from espalier.core.plugins import GROUPS, find_plugins
from espalier.store.facts import FileFacts

_HASH_CHARS = 16  # enough to tell versions of one module apart
_PLUGIN_TABLE = "espalier.core.plugins"  # names every group and loads none by itself
_VENDORED = ("site-packages", "dist-packages")
# CPython 3.11 counts the depth of a tree it builds for all threads together, and takes two at once for an error:
# https://github.com/python/cpython/issues/106905
_PARSING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Closure:
    """`modules`: first-party module -> hash of its code. `packages`: third-party package -> version."""

    modules: Mapping[str, str]
    packages: Mapping[str, str]


class CodeScanner:
    """Finds closures; remembers modules while it lives, and syntax trees across runs (`FileFacts`)."""

    def __init__(self, facts: FileFacts) -> None:
        self._facts = facts
        self._paths: dict[str, Path | None] = {}
        self._scans: dict[str, Mapping[str, Any]] = {}
        self._installed: Mapping[str, Mapping[str, str]] | None = None

    def scan(self, module: str) -> Closure:
        """The closure of `module`; one that cannot be found has the hash "missing"."""
        modules: dict[str, str] = {}
        packages: dict[str, str] = {}
        waiting = {module}
        while waiting:
            self._read({name: path for name in waiting if (path := self._locate(name)) is not None})
            reached: set[str] = set()
            for name in sorted(waiting):
                scan = self._scans.get(name)
                modules[name] = scan["hash"] if scan else "missing"
                if scan:
                    reached |= set(self._targets(name, scan))
            waiting = set()
            for name in reached - modules.keys():
                if self._locate(name) is not None:
                    waiting.add(name)
                else:
                    packages.update(self._packages_of(name))
        return Closure(dict(sorted(modules.items())), dict(sorted(packages.items())))

    def _read(self, paths: Mapping[str, Path]) -> None:
        fresh = {name: path for name, path in paths.items() if name not in self._scans}
        scans = self._facts.derive("code", fresh.values(), scan_file)
        self._scans.update({name: scans[path] for name, path in fresh.items()})

    def _targets(self, module: str, scan: Mapping[str, Any]) -> Iterator[str]:
        """Dotted names a module imports, and the packages above them; what is no module is sorted out later."""
        path = self._paths[module]
        package = module if path is not None and path.name == "__init__.py" else module.rpartition(".")[0]
        for level, base, names in scan["imports"]:
            root = _absolute(package, level, base)
            if root:
                yield from _with_parents(root)
                yield from (f"{root}.{name}" for name in names if name != "*")
        if module != _PLUGIN_TABLE:
            for group in scan["groups"]:
                for point in find_plugins(group).values():
                    yield from _with_parents(point.module)

    def _locate(self, name: str) -> Path | None:
        """The file of a first-party module, or None for anything else."""
        if name not in self._paths:
            self._paths[name] = self._find(name)
        return self._paths[name]

    def _find(self, name: str) -> Path | None:
        top, _, rest = name.partition(".")
        if top in sys.stdlib_module_names:
            return None
        if rest:
            above = self._locate(name.rpartition(".")[0])
            folders = [above.parent] if above is not None and above.name == "__init__.py" else _namespace(name)
        else:
            spec = _top_level(top)
            if spec is None or not spec.origin or spec.origin in ("built-in", "frozen"):
                return None
            path = Path(spec.origin)
            return path if top == "espalier" or not set(_VENDORED) & set(path.parts) else None
        last = name.rpartition(".")[2]
        candidates = (path for folder in folders for path in (folder / last / "__init__.py", folder / f"{last}.py"))
        return next((path for path in candidates if path.is_file()), None)

    def _packages_of(self, name: str) -> Mapping[str, str]:
        """Versions of the installed packages a third-party module may come from."""
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or self._locate(top) is not None:
            return {}
        if self._installed is None:  # looked up once as long as nothing is installed: that changes the folder's time
            folders = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
            found = self._facts.derive("packages", folders, list_packages)
            self._installed = {module: packages for listed in found.values() for module, packages in listed.items()}
        return self._installed.get(top, {})


def list_packages(folder: Path) -> dict[str, dict[str, str]]:
    """Top-level module -> {package: version} of all that is installed in a site-packages folder."""
    found: dict[str, dict[str, str]] = {}
    for package in importlib.metadata.distributions(path=[str(folder)]):
        declared = (package.read_text("top_level.txt") or "").split()
        for module in declared or {Path(file).parts[0].partition(".")[0] for file in package.files or ()}:
            found.setdefault(module, {})[package.name] = package.version
    return found


def scan_file(path: Path) -> dict[str, Any]:
    """The hash of a module's syntax tree, its imports as [level, module, names], and the plug-in groups it names."""
    return _scan(path.read_bytes())


@lru_cache(4096)  # a process that opens one workspace after the other reads the same code again and again
def _scan(data: bytes) -> dict[str, Any]:
    try:
        with _PARSING:
            tree = ast.parse(data)
    except (SyntaxError, ValueError):  # it will not run either; its bytes stand for it
        return {"hash": hashlib.sha256(data).hexdigest()[:_HASH_CHARS], "imports": [], "groups": []}
    visitor = _Imports()
    visitor.visit(tree)
    digest = hashlib.sha256(ast.dump(tree, include_attributes=False).encode()).hexdigest()
    return {"hash": digest[:_HASH_CHARS], "imports": visitor.found, "groups": sorted(visitor.groups)}


class _Imports(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: list[tuple[int, str, list[str]]] = []
        self.groups: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [(0, alias.name, []) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.found.append((node.level, node.module or "", [alias.name for alias in node.names]))

    def visit_If(self, node: ast.If) -> None:
        if _last_name(node.test) == "TYPE_CHECKING":
            for part in node.orelse:
                self.visit(part)
        else:
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = _last_name(node.func)
        if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            name = str(node.args[0].value)
            if not name.startswith("."):
                self.found.append((0, name, []))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and node.value in GROUPS:
            self.groups.add(node.value)


def _last_name(node: ast.expr) -> str:
    """`c` of `c` and of `a.b.c`; "" of anything else."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _top_level(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _namespace(name: str) -> Iterable[Path]:
    """Folders of a package without an __init__.py, as far as it is the user's own."""
    top, *middle = name.split(".")[:-1]
    spec = _top_level(top)
    for folder in (spec.submodule_search_locations or ()) if spec is not None and not spec.origin else ():
        path = Path(folder, *middle)
        if not set(_VENDORED) & set(path.parts):
            yield path


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: count + 1]) for count in range(len(parts)))


def _absolute(package: str, level: int, base: str) -> str:
    if not level:
        return base
    above = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*above, base] if base else above)
