"""What is put in the place of a value: its kind, a keyed hash, or something that looks like it and is nobody's.

Hashes and surrogates are functions of the value, its kind and a key (HMAC-SHA-256), so the same value gets the same one
in every document, process, run and dataset version with that key; without the key nobody can tell which value it was,
nor try values. The key is read from where the recipe says and kept nowhere.

Surrogates are made of what is reserved for no one: mail addresses under `.example` (RFC 2606), telephone numbers of the
unassigned country code 999 (ITU-T E.164), IP addresses of 240.0.0.0/4 (RFC 1112) and 2001:db8::/32 (RFC 3849),
family names that no family has. So a surrogate is known for one, and redacting again leaves it.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from pathlib import Path

from espalier.core.errors import InvalidInput, NotFound

MIN_SALT_BYTES = 16
_GIVEN_WORDS = (
    "Ada Alan Alba Alma Amir Anna Aron Asta Beau Bela Bram Cara Cleo Cora Dara Demi Dina Dora Edda Egon Elia Elin Elsa "
    "Emil Enzo Erik Esra Ezra Fela Finn Gina Greta Hana Hugo Ida Ilan Inga Iris Ivo Jana Jara Jona Juna Kaja Kian Kira "
    "Lara Lena Levi Lina Loki Luca Luna Maja Mara Maya Milo Mina Mira Nael Nela Nico Nina Noa Nora Odin Olga Omar Orla "
    "Otto Pia Rafa Rana Remy Rhea Rita Romy Rosa Ruth Sami Sara Selma Sina Sol Tala Tara Tess Theo Tilo Timo Toni Tove "
    "Uma Ugo Vera Vida Vito Wanda Xena Yara Yann Yuna Zara Zeno Zoe Alva Bea Carl Dan Eva Fia Gus Hal Ian Jo Kit Leo "
    "Max Ned Oda Pat Quin Ray Sue Ted"
)
_FIRST_WORDS = (
    "Alder Amber Arrow Ashen Aspen Barley Beech Birch Blue Bracken Briar Brook Cedar Clover Copper Coral Cotton Dapple "
    "Dawn Elder Ember Fallow Fennel Fern Flint Frost Gorse Granite Harbour Hazel Heather Hollow Indigo Ivory Juniper "
    "Kelp Larch Laurel Linden Maple Marsh Meadow Mellow Mist Moss Nettle Oaken Ochre Olive Onyx Pebble Poplar Quartz "
    "Reed Rowan Russet Saffron Sage Silver Sorrel Thistle Umber Willow Yarrow"
)
_LAST_WORDS = (
    "acre barrow bough brae brink burrow cairn combe croft dell fallow fen fold garth gate glade gully haven heath "
    "hedge hollow hurst knoll ledge marl mead mere moor reach rill shaw stead"
)
_GIVEN, _FIRST, _LAST = _GIVEN_WORDS.split(), _FIRST_WORDS.split(), _LAST_WORDS.split()
_LETTERS = "bcdfghjklmnpqrst"  # hexadecimal without a digit, so that no rule takes a hash for a number

_TAG = rf"\[[A-Z][A-Z_]*(?::[{_LETTERS}]{{16}})?\]"
_NAME = rf"(?:{'|'.join(_GIVEN)}) [A-Z]\. (?:{'|'.join(_FIRST)})(?:{'|'.join(_LAST)})"
_EMAIL = (
    rf"(?:{'|'.join(_GIVEN)})\.(?:{'|'.join(_FIRST)})(?:{'|'.join(_LAST)})\.[{_LETTERS}]{{8}}@mail\.example".lower()
)
_PHONE = r"\+999(?: \d{3}){4}"
_IP = r"2(?:4\d|5[0-5])(?:\.\d{1,3}){3}|2001:db8(?::[0-9a-f]{1,4}){6}"
# What redaction itself has written, and no finding of a name may overlap.
WRITTEN = re.compile(f"{_TAG}|\\b{_NAME}\\b|{_EMAIL}")
_OWN = {kind: re.compile(form.encode()) for kind, form in (("EMAIL", _EMAIL), ("PHONE", _PHONE), ("IP", _IP))}
LOOK_ALIKES = tuple(_OWN)  # kinds whose surrogates the rules would find


def read_salt(named: str, folder: Path) -> bytes:
    """The key of hashes and surrogates: `env:NAME`, or a file relative to `folder`.

    Raises NotFound where there is none, InvalidInput for one of fewer than 16 bytes.
    """
    if named.startswith("env:"):
        name = named.removeprefix("env:")
        if name not in os.environ:
            raise NotFound(f"the environment has no variable {name}", hint=f"export {name}=$(openssl rand -hex 32)")
        salt = os.environ[name].encode()
    else:
        path = folder / named
        if not path.is_file():
            raise NotFound(
                f"no file {named} with a salt", hint=f"openssl rand -hex 32 > {named}; keep it out of the data"
            )
        salt = path.read_bytes().strip()
    if len(salt) < MIN_SALT_BYTES:
        hint = "openssl rand -hex 32 makes one; with a short one, values can be guessed from their hashes"
        raise InvalidInput(f"the salt {named} has {len(salt)} bytes, at least {MIN_SALT_BYTES} are needed", hint=hint)
    return salt


def canonical(kind: str, value: str) -> str:
    """The value as all its spellings have it: without case, spaces and separators where these mean nothing."""
    if kind in ("EMAIL", "NAME", "ADDRESS", "MAC"):
        return " ".join(value.casefold().replace("-", ":" if kind == "MAC" else "-").split())
    if kind == "PHONE":
        digits = re.sub(r"[^0-9+]", "", re.split("[xe]", value)[0])
        return digits.removeprefix("+") if digits.startswith("+") else re.sub("^00", "", digits)
    if kind == "IP":
        return ipaddress.ip_address(value).compressed
    if kind in ("SECRET", "URL", "CRYPTO"):
        return value
    return re.sub(r"[^0-9A-Z]", "", value.upper())


class Surrogates:
    """Hashes and surrogates under one key."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._made: dict[tuple[str, str, str], str] = {}

    def make(self, mode: str, kind: str, value: str) -> str:
        """mode: "hash" gives `[KIND:16 letters]`, "pseudonymise" a look-alike where the kind has one, else the hash."""
        key = (mode, kind, value)
        made = self._made.get(key)
        if made is None:
            if len(self._made) > 100_000:
                self._made.clear()
            told = hmac.digest(self._salt, f"{kind}\0{canonical(kind, value)}".encode(), "sha256")
            made = self._made[key] = _look_alike(kind, value, told) if mode == "pseudonymise" else _tag(kind, told)
        return made

    @staticmethod
    def is_own(kind: str, value: bytes) -> bool:
        """True for what `make` writes for this kind."""
        form = _OWN.get(kind)
        return form is not None and form.fullmatch(value) is not None


def _letters(told: bytes) -> str:
    return "".join(_LETTERS[byte >> 4] + _LETTERS[byte & 15] for byte in told)


def _tag(kind: str, told: bytes) -> str:
    return f"[{kind}:{_letters(told[:8])}]"


def _look_alike(kind: str, value: str, told: bytes) -> str:
    if kind == "NAME":
        return " ".join(_name(told))
    if kind == "EMAIL":
        given, _, family = _name(told)
        return f"{given}.{family}.{_letters(told[8:12])}@mail.example".lower()
    if kind == "PHONE":
        digits = f"{int.from_bytes(told[:8], 'big') % 10**12:012}"
        return "+999 " + " ".join(digits[at : at + 3] for at in range(0, 12, 3))
    if kind == "IP" and ":" in value:
        return "2001:db8:" + ":".join(f"{int.from_bytes(told[at : at + 2], 'big'):x}" for at in range(0, 12, 2))
    if kind == "IP":
        return f"{240 + told[0] % 15}.{told[1]}.{told[2]}.{told[3]}"
    return _tag(kind, told)


def _name(told: bytes) -> tuple[str, str, str]:
    given = _GIVEN[int.from_bytes(told[:2], "big") % len(_GIVEN)]
    return given, f"{chr(65 + told[2] % 26)}.", _FIRST[told[3] % len(_FIRST)] + _LAST[told[4] % len(_LAST)]
