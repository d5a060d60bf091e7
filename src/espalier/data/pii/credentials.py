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
# Each of these is twenty characters without a break, or begins as `triggers` knows.
_TOKENS = "|".join(
    (
        r"(?:sk|pk|rk)[-_](?:[a-z0-9]+[-_]){0,3}[A-Za-z0-9_-]{17,}",
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
        r"whsec_[A-Za-z0-9+/]{24,}",
        r"\d{8,10}:AA[\w-]{32,34}",
        r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    )
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
_URL = r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@\"'<>\x00]{0,128}:[^\s/@\"'<>\x00]{1,256}@"

_SPLIT = re.compile(rb"(?:=>|:=|[:=]) ?| is | ist | was |'s ")
_RUN = re.compile(rb"[A-Za-z0-9_-]{20,}")
_SOLID = re.compile(rb"[A-Za-z0-9]{20}")
_PREFIX = re.compile(rb"[spr]k[-_]|AIz|xox|gh|glp|hf_|eyJ")
_NOT_VALUES = re.compile(
    rb"(?i)^(?:none|null|nil|true|false|undefined|string|str|required|optional|yes|no|bytes|int|text|any|self|"
    rb"x{3,}|\*{2,}|\.{3,}|<.*|\$.*|\{.*|\[.*|%.*|\(.*|os\.|env|config|settings|process\.|getpass|input\(|your.*|my.*)"
)
_WORD = re.compile(rb"[A-Za-z]+[.!?)]*$|[a-z]+(?:[_.-][a-z]+)+$|\w+(?:\.\w+)*[(\[].*$")
_STRONG = re.compile(rb"(?i)(?:pass|pwd)")


def check_token(text: bytes, start: int, end: int) -> Extent | None:
    """A run of at least twenty characters with a digit, or as `triggers` knows it: what it would not see is no key."""
    low = start
    while low and (text[low - 1 : low].isalnum() or text[low - 1] in b"_-"):
        low -= 1
    found = text[low:end]
    if _PREFIX.match(found) or re.match(rb"\d{8}", found):
        return start, end
    runs = _RUN.findall(found)
    return (start, end) if any(_SOLID.search(run) or re.search(rb"\d", run) for run in runs) else None


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
    if len(value) < 4 or value[:1] in b"[<{$" or _NOT_VALUES.match(value):
        return None
    if _STRONG.search(found[: split.start()]):
        return (low, end) if looks_chosen(value) else None
    return (low, end) if len(value) >= 8 and looks_random(value) else None


def looks_chosen(value: bytes) -> bool:
    """A password as people choose them: six characters and not one plain word or name in code."""
    return len(value) >= 6 and not _WORD.match(value)


def looks_random(value: bytes) -> bool:
    """A key as machines make them: no spaces, a digit, and at least 3 bits of entropy a character."""
    if b" " in value or not any(48 <= byte <= 57 for byte in value):
        return False
    counts = Counter(value)
    bits = -sum(count / len(value) * math.log2(count / len(value)) for count in counts.values())
    return bits >= min(3.0, math.log2(len(value)) - 0.5)


def check_url(text: bytes, start: int, end: int) -> Extent | None:
    """The user and password of `scheme://user:password@host`; the rest of the URL is kept."""
    low = text.index(b"://", start) + 3
    password = text[low : end - 1].partition(b":")[2]
    return None if password[:1] in b"[<{$%*" or password in (b"password", b"pass") else (low, end - 1)


RULES = (
    rule("SECRET", "private_key", "-", _PRIVATE_KEY, accept),
    rule("SECRET", "token", "A-Za-z0-9", rf"\b(?:{_TOKENS})", check_token),
    rule("SECRET", "assigned", "A-Za-z_", _ASSIGNED, check_assigned),
    rule("SECRET", "spoken", "pP", _SPOKEN, check_assigned),
    rule("SECRET", "url", "A-Za-z", _URL, check_url),
)
