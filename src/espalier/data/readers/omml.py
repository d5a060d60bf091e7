"""Office Math (ECMA-376 part 1, section 22.1) as LaTeX.

Structure is kept (fractions, scripts, roots, delimiters, sums, matrices); fonts and sizes are not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

from espalier.data.readers.container import attribute, child, local_name

_SIGNS = {
    "∑": r"\sum", "∏": r"\prod", "∐": r"\coprod", "∫": r"\int", "∬": r"\iint", "∭": r"\iiint", "∮": r"\oint",
    "⋃": r"\bigcup", "⋂": r"\bigcap", "∞": r"\infty", "≤": r"\leq", "≥": r"\geq", "≠": r"\neq", "≈": r"\approx",
    "≡": r"\equiv", "≅": r"\cong", "∼": r"\sim", "∝": r"\propto", "±": r"\pm", "∓": r"\mp", "×": r"\times",
    "÷": r"\div", "⋅": r"\cdot", "·": r"\cdot", "∘": r"\circ", "∗": r"\ast", "⊕": r"\oplus", "⊗": r"\otimes",
    "→": r"\rightarrow", "←": r"\leftarrow", "↔": r"\leftrightarrow", "⇒": r"\Rightarrow", "⇐": r"\Leftarrow",
    "⇔": r"\Leftrightarrow", "∂": r"\partial", "∇": r"\nabla", "∈": r"\in", "∉": r"\notin", "∋": r"\ni",
    "⊂": r"\subset", "⊆": r"\subseteq", "⊃": r"\supset", "⊇": r"\supseteq", "∪": r"\cup", "∩": r"\cap",
    "∅": r"\emptyset", "∀": r"\forall", "∃": r"\exists", "¬": r"\neg", "∧": r"\wedge", "∨": r"\vee",
    "⟨": r"\langle", "⟩": r"\rangle", "⌊": r"\lfloor", "⌋": r"\rfloor", "⌈": r"\lceil", "⌉": r"\rceil",
    "‖": r"\|", "…": r"\ldots", "⋯": r"\cdots", "⋮": r"\vdots", "⋱": r"\ddots", "ℏ": r"\hbar", "ℓ": r"\ell",
    "′": "'", "−": "-", "{": r"\{", "}": r"\}", "%": r"\%", "#": r"\#", "&": r"\&", "$": r"\$", "_": r"\_",
    "\\": r"\backslash",
}  # fmt: skip
_ACCENTS = {
    "\u0302": r"\hat", "\u0303": r"\tilde", "\u0304": r"\bar", "\u0305": r"\overline", "\u0307": r"\dot",
    "\u0308": r"\ddot", "\u20d7": r"\vec", "\u030c": r"\check", "\u0306": r"\breve", "\u0301": r"\acute",
    "\u0300": r"\grave", "\u20db": r"\dddot",
}  # fmt: skip
_FUNCTIONS = {
    *("arccos", "arcsin", "arctan", "arg", "cos", "cosh", "cot", "coth", "csc", "deg", "det", "dim", "exp", "gcd"),
    *("hom", "inf", "ker", "lg", "lim", "liminf", "limsup", "ln", "log", "max", "min", "Pr", "sec", "sin", "sinh"),
    *("sup", "tan", "tanh"),
}


def write_math(element: Any) -> str:
    """LaTeX of an `m:oMath` (or any element inside one), without dollars."""
    return join_parts(_write(part) for part in element)


def join_parts(parts: Iterable[str]) -> str:
    """The parts in one, a space where a letter would run into the command before it."""
    out = ""
    for part in parts:
        runs_in = part[:1].isalpha() and re.search(r"\\[A-Za-z]+$", out) is not None
        out += f" {part}" if runs_in else part
    return out


def _write(element: Any) -> str:
    name = local_name(element)
    writer = _WRITERS.get(name)
    if writer is not None:
        return writer(element)
    return "" if name.endswith("Pr") else write_math(element)


def _run(element: Any) -> str:
    text = "".join(part.text or "" for part in element if local_name(part) == "t")
    if child(element, "rPr", "nor") is not None and any(each.isalpha() for each in text):
        return rf"\text{{{text}}}"
    return write_signs(text)


def write_signs(text: str) -> str:
    """Characters of a formula as LaTeX commands, a space where a letter would run into a command."""
    plain = "".join(sign if sign in _SIGNS else unicodedata.normalize("NFKC", sign) for sign in text)
    return join_parts(_SIGNS.get(sign) or _greek(sign) or sign for sign in plain)


def _greek(sign: str) -> str:
    if not "\u0370" <= sign <= "\u03ff":
        return ""
    match = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(sign, ""))
    if match is None:
        return ""
    name = match[2].lower().replace("lamda", "lambda")
    return "\\" + (name.capitalize() if match[1] == "CAPITAL" else name)


def _part(element: Any, name: str) -> str:
    found = child(element, name)
    return write_math(found) if found is not None else ""


def _base(element: Any) -> str:
    text = _part(element, "e")
    return text if len(text) < 2 or re.fullmatch(r"\\[A-Za-z]+|\\left.*\\right.", text) else f"{{{text}}}"


def _property(element: Any, holder: str, name: str, default: str) -> str:
    found = child(element, holder, name)
    return default if found is None else attribute(found, "val")


def _fraction(element: Any) -> str:
    above, below = _part(element, "num"), _part(element, "den")
    kind = _property(element, "fPr", "type", "bar")
    if kind == "noBar":
        return rf"\genfrac{{}}{{}}{{0pt}}{{}}{{{above}}}{{{below}}}"
    return f"{above}/{below}" if kind == "lin" else rf"\frac{{{above}}}{{{below}}}"


def _root(element: Any) -> str:
    degree = _part(element, "deg")
    return rf"\sqrt[{degree}]{{{_part(element, 'e')}}}" if degree else rf"\sqrt{{{_part(element, 'e')}}}"


def _delimiters(element: Any) -> str:
    first = _property(element, "dPr", "begChr", "(") or "."
    last = _property(element, "dPr", "endChr", ")") or "."
    between = write_signs(_property(element, "dPr", "sepChr", "|"))
    inner = between.join(write_math(part) for part in element if local_name(part) == "e")
    return rf"\left{write_signs(first)}{_spaced(first)}{inner}\right{write_signs(last)}"


def _spaced(sign: str) -> str:
    return " " if write_signs(sign)[-1:].isalpha() else ""


def _nary(element: Any) -> str:
    sign = write_signs(_property(element, "naryPr", "chr", "∫"))
    below, above = _part(element, "sub"), _part(element, "sup")
    scripts = (f"_{{{below}}}" if below else "") + (f"^{{{above}}}" if above else "")
    inner = _part(element, "e")
    return f"{sign}{scripts}{'' if scripts or not inner[:1].isalpha() else ' '}{inner}"


def _function(element: Any) -> str:
    name, inner = _part(element, "fName"), _part(element, "e")
    bare = re.match(r"(?:\\text\{)?\\?([A-Za-z]+)\}?", name)
    if bare is not None and bare[1] in _FUNCTIONS:
        name = "\\" + bare[1] + name[bare.end() :]
    return f"{name} {inner}" if inner[:1].isalnum() else f"{name}{inner}"


def _accent(element: Any) -> str:
    command = _ACCENTS.get(_property(element, "accPr", "chr", "\u0302"), r"\hat")
    return f"{command}{{{_part(element, 'e')}}}"


def _bar(element: Any) -> str:
    command = r"\overline" if _property(element, "barPr", "pos", "bot") == "top" else r"\underline"
    return f"{command}{{{_part(element, 'e')}}}"


def _brace(element: Any) -> str:
    command = r"\overbrace" if _property(element, "groupChrPr", "pos", "bot") == "top" else r"\underbrace"
    return f"{command}{{{_part(element, 'e')}}}"


def _matrix(element: Any) -> str:
    rows = [
        " & ".join(write_math(cell) for cell in row if local_name(cell) == "e")
        for row in element
        if local_name(row) == "mr"
    ]
    return r"\begin{matrix}" + r" \\ ".join(rows) + r"\end{matrix}"


def _equations(element: Any) -> str:
    rows = [write_math(part) for part in element if local_name(part) == "e"]
    return r"\begin{array}{l}" + r" \\ ".join(rows) + r"\end{array}"


def _limit(sign: str) -> Callable[[Any], str]:
    def write(element: Any) -> str:
        base = _part(element, "e")
        if base in _FUNCTIONS:
            base = "\\" + base
        return f"{base}{sign}{{{_part(element, 'lim')}}}"

    return write


_WRITERS: dict[str, Callable[[Any], str]] = {
    "r": _run,
    "f": _fraction,
    "rad": _root,
    "sSup": lambda each: f"{_base(each)}^{{{_part(each, 'sup')}}}",
    "sSub": lambda each: f"{_base(each)}_{{{_part(each, 'sub')}}}",
    "sSubSup": lambda each: f"{_base(each)}_{{{_part(each, 'sub')}}}^{{{_part(each, 'sup')}}}",
    "sPre": lambda each: f"{{}}_{{{_part(each, 'sub')}}}^{{{_part(each, 'sup')}}}{_part(each, 'e')}",
    "d": _delimiters,
    "nary": _nary,
    "func": _function,
    "acc": _accent,
    "bar": _bar,
    "groupChr": _brace,
    "m": _matrix,
    "eqArr": _equations,
    "limLow": _limit("_"),
    "limUpp": _limit("^"),
}
