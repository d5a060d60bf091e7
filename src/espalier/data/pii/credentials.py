"""Rules for secrets: keys and tokens known by how their issuers write them, and values that are named a secret.

Issuers' forms: the token formats that GitHub, GitLab, Slack, Stripe, AWS, Google, Hugging Face, OpenAI, Anthropic, npm,
PyPI, SendGrid, Telegram and DigitalOcean document for secret scanning; RFC 7519 (JWT); RFC 7468 (PEM).
"""

from __future__ import annotations

import math
import re
from collections import Counter

from espalier.data.pii.finding import Extent, accept, any_case, rule

_MARK = r"[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE_KEY = rf"-----BEGIN {_MARK}(?:[^\x00-]|-{{1,4}}[^\x00-])*-----END {_MARK}"
# Each is at least 13 characters without a break and begins as `triggers` knows.
_TOKENS = "|".join(
    (
        r"sk-(?:ant|proj|svcacct|admin|or)-[A-Za-z0-9_-]{17,}",
        r"(?:sk|pk|rk)[-_](?:[a-z0-9]+[-_]){0,3}[A-Za-z0-9]{16}[A-Za-z0-9_-]*",
        r"(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b",
        r"gh[pousr]_[A-Za-z0-9]{36,}",
        r"github_pat_\w{22,}",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|oas)-[\w-]{20,}",
        r"xox[abeoprs]-[A-Za-z0-9-]{16,}",
        r"xapp-\d-[A-Z0-9]{8,}-\d{6,}-[a-f0-9]{20,}",
        r"AIza[\w-]{35}",
        r"ya29\.[\w-]{20,}",
        r"GOCSPX-[\w-]{20,}",
        r"hf_[A-Za-z0-9]{30,}",
        r"npm_[A-Za-z0-9]{36}\b",
        r"pypi-AgEI[\w-]{50,}",
        r"SG\.[\w-]{20,24}\.[\w-]{39,50}",
        r"do[opr]_v1_[a-f0-9]{64}\b",
        r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}\b",
        r"whsec_[A-Za-z0-9]{8}[A-Za-z0-9+/]{16,}",
        r"\d{8,10}:AA[\w-]{32,34}",
        r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    )
)
_OPENINGS = (
    r"[spr]k[-_]|A(?:K|S|B|C)[IC]A[0-9A-Z]{4}|gh[pousr]_|github_pat_|gl[a-z]+-|xox[a-z]-|xapp-|AIza|ya29\.|GOCSPX-|hf_"
    r"|npm_|pypi-|SG\.|do[opr]_v1|shp[a-z]+_|whsec_|\d{8,10}:AA|eyJ"
)
# Names for secrets; they end in what `triggers` looks for before a colon or an equals sign. `~` is a space, _ or -.
_ANYWHERE = "password passwd pwd passwort passphrase passcode api~key apikey secret~key secretkey access~key accesskey \
account~key accountkey private~key privatekey client~secret clientsecret signature~key"
_BY_THEMSELVES = "pass secret token credential auth~key encryption~key"


def _names(names: str) -> str:
    return "|".join(any_case(name).replace("~", "[_ -]") for name in names.split())


_NAME = rf"(?:{_names(_ANYWHERE)}|(?:\b|_)(?:{_names(_BY_THEMSELVES)}))"
_VALUE = r"(?:\"[^\"\n\x00]{1,128}\"|'[^'\n\x00]{1,128}'|[^\s,;\"'\x00]{4,512})"
_ASSIGNED = rf"{_NAME}[\"'\]*]{{0,3}} ?(?:=>|:=|[:=]) ?{_VALUE}"
_SPOKEN = rf"\b(?:{_names('password passwort passcode passphrase')})(?: is| ist| was|'s) [^\s,;\x00]{{4,128}}"
_URL = r"://[^\s/:@\"'<>\x00]{0,128}:[^\s/@\"'<>\x00]{1,256}@"

_SPLIT = re.compile(rb"(?:=>|:=|[:=]) ?| is | ist | was |'s ")
_NOT_VALUES = re.compile(
    rb"(?i)^(?:none|null|nil|true|false|undefined|string|str|required|optional|yes|no|bytes|int|text|any|self|"
    rb"x{3,}|\*{2,}|\.{3,}|<.*|\$.*|\{.*|\[.*|%.*|\(.*|os\.|env|config|settings|process\.|getpass|input\(|your.*|my.*)"
)
_WORD = re.compile(rb"[A-Za-z]+[.!?)]*$|[a-z]+(?:[_.-][a-z]+)+$|\w+(?:\.\w+)*[(\[].*$")
_CODE = re.compile(rb"[ ()\[\]{}<>]|^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+$")
_SYLLABLES = re.compile(rb"[a-z]{5}")  # chance makes them in one key of a hundred
_STRONG = re.compile(rb"(?i)(?:pass|pwd)")


def check_assigned(text: bytes, start: int, end: int) -> Extent | None:
    """The value of `password: value`, its name is kept. What is itself a name, a call or a type is no value."""
    found = text[start:end]
    split = _SPLIT.search(found)
    if split is None:
        return None
    value, low = found[split.end() :], start + split.end()
    if value[:1] in (b'"', b"'"):
        value, low, end = value[1:-1], low + 1, end - 1
    elif value.rstrip(b".)]}>") != value:
        value = value.rstrip(b".)]}>")
        end = low + len(value)
    if len(value) < 4 or value[:1] in b"[<{$=>" or _NOT_VALUES.match(value):
        return None
    if _STRONG.search(found[: split.start()]):
        return (low, end) if looks_chosen(value) else None
    return (low, end) if len(value) >= 8 and looks_random(value) else None


def looks_chosen(value: bytes) -> bool:
    """A password as people choose them: six characters and not one plain word or name in code."""
    if b" " in value and not any(48 <= byte <= 57 for byte in value):
        return False  # a sentence
    return len(value) >= 6 and not value.isalpha() and not _WORD.match(value)


def looks_random(value: bytes) -> bool:
    """A key as machines make them: digits, no code around them, and at least 3 bits of entropy a character."""
    digits = sum(48 <= byte <= 57 for byte in value)
    if digits == 0 or _CODE.search(value) or (digits < 3 and _SYLLABLES.search(value)):
        return False
    counts = Counter(value)
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    return bits >= min(3.0, math.log2(len(value)) - 0.5)


_PLACEHOLDERS = frozenset(b"password pass passwd pwd passphrase token secret mypassword yourpassword xxx".split())


def check_url(text: bytes, start: int, end: int) -> Extent | None:
    """The user and password of `scheme://user:password@host`; the rest of the URL is kept."""
    low = start + 3
    if not text[max(0, start - 1) : start].isalnum():
        return None  # no scheme
    password = text[low : end - 1].partition(b":")[2]
    told = password[:1] in b"[<{$%*" or password.lower() in _PLACEHOLDERS
    return (low, end - 1) if not told and (text[end : end + 1].isalnum() or text[end : end + 1] == b"[") else None


RULES = (
    rule("SECRET", "private_key", "-", _PRIVATE_KEY, accept, "-----BEGIN", longest_bytes=1 << 16),
    rule("SECRET", "token", "A-Za-z0-9", rf"\b(?:{_TOKENS})", accept, rf"\b(?:{_OPENINGS})", longest_bytes=1 << 13),
    rule("SECRET", "assigned", "A-Za-z_", _ASSIGNED, check_assigned, rf"{_NAME}[\"'\]*]{{0,3}} ?[:=]"),
    rule(
        "SECRET",
        "spoken",
        "pP",
        _SPOKEN,
        check_assigned,
        rf"\b(?:{_names('password passwort passcode passphrase')})[ ']",
    ),
    rule("SECRET", "url", ":", _URL, check_url, r"://[^\s/:@\"'<>\x00]*:"),
)
