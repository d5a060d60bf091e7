"""Check digits, each by its published method. Digits are lists of ints, most significant first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

Digits = Sequence[int]


def luhn(digits: Digits) -> bool:
    """ISO/IEC 7812-1 annex B: every wrong digit and nearly every transposition of neighbours (not 09/90) fails."""
    odd, even = digits[-1::-2], digits[-2::-2]
    return (sum(odd) + sum(sum(divmod(2 * digit, 10)) for digit in even)) % 10 == 0


def weighted(digits: Digits, weights: Digits) -> int:
    """The sum of digits times weights; as many digits are taken as there are weights."""
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=False))


def mod_97_10(code: str) -> int:
    """ISO/IEC 7064 MOD 97-10 of letters (A = 10) and digits: 1 when an IBAN, turned, is right."""
    return int("".join(str(int(char, 36)) for char in code)) % 97


def mod_11_10(digits: Digits) -> bool:
    """ISO/IEC 7064 MOD 11,10 (hybrid), check digit last."""
    product = 10
    for digit in digits[:-1]:
        product = ((product + digit) % 10 or 10) * 2 % 11
    return (product + digits[-1]) % 10 == 1


def mod_11_2(digits: Digits) -> bool:
    """ISO/IEC 7064 MOD 11-2, check digit last; 10 stands for X."""
    total = 0
    for digit in digits:
        total = total * 2 + digit
    # Each step doubles, so the last digit has been added undoubled: the whole must leave 1.
    return total % 11 == 1


# J. Verhoeff, Error Detecting Decimal Codes, Mathematical Centre Tract 29 (1969).
def _multiply(a: int, b: int) -> int:
    """The product of two elements of D5: 0..4 turn, 5..9 turn and flip."""
    turn = (a % 5 - b % 5) if a > 4 else (a % 5 + b % 5)
    return turn % 5 + 5 * ((a > 4) != (b > 4))


_PERMUTE = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def verhoeff(digits: Digits) -> bool:
    """Check digit last. Every wrong digit and every transposition of neighbours fails."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        for _ in range(position % 8):
            digit = _PERMUTE[digit]
        total = _multiply(total, digit)
    return total == 0


_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_VALUE = {char: value for value, char in enumerate(_BASE58)}


def base58check(code: str) -> bytes | None:
    """The payload (version byte and hash) of a Base58Check string, or None when its checksum is wrong.

    Bitcoin wiki, Base58Check encoding: the last four bytes are the first of SHA-256 twice over the rest.
    """
    number = 0
    for char in code:
        if char not in _BASE58_VALUE:
            return None
        number = number * 58 + _BASE58_VALUE[char]
    zeros = len(code) - len(code.lstrip("1"))
    raw = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    payload, check = raw[:-4], raw[-4:]
    return payload if hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4] == check else None


_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_VALUE = {char: value for value, char in enumerate(_BECH32)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def bech32(code: str) -> bool:
    """A segwit address of BIP 173 (Bech32, version 0) or BIP 350 (Bech32m, later versions), in one case."""
    if code != code.lower() and code != code.upper():
        return False
    part, _, data = code.lower().rpartition("1")
    if not part or len(data) < 7 or any(char not in _BECH32_VALUE for char in data):
        return False
    values = [_BECH32_VALUE[char] for char in data]
    expanded = [ord(char) >> 5 for char in part] + [0] + [ord(char) & 31 for char in part]
    check = 1
    for value in expanded + values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit in range(5):
            check ^= _GENERATOR[bit] if top >> bit & 1 else 0
    return check == (1 if values[0] == 0 else 0x2BC830A3)
