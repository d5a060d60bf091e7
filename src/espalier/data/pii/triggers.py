"""The stretches of a text in which a pattern could match at all, found in one pass over its bytes (numba).

Every match of every rule contains one of these triggers, and the window around it holds the match and the context its
judge may look at. So patterns that see windows alone find what they would have found in the whole text, and in ordinary
prose or code windows are a few hundredths of it. `tests/unit/data/test_redaction_windows.py` holds each rule to this.

Triggers: `@` within a word; digits in a chain (6 of them, or 4 with three dots); letters and digits mixed without a
break; a country's letters with two digits (IBAN); hexadecimal groups between colons or hyphens (IPv6, MAC); what issued
keys and crypto addresses begin with; a word for a secret before `:` or `=` and something that is no plain word after
it; `passw...`; `BIC` and `SWIFT`; `-----BEGIN`; `://` where URLs are wanted.

Knows byte classes only; what a window holds is for the rules to say.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from espalier.data.kernels.buffers import Bytes, Offsets
from espalier.data.kernels.compiling import kernel

# Bytes kept around a trigger, before the window is widened to the next white space on both sides.
BEFORE = 64  # context words (finding.REACH_BEFORE_BYTES) and the letters a number may begin with
AFTER = 32  # an extension and the word after a number
IBAN = 48  # 34 characters and the spaces between
SECRET = 140  # a quoted value
KEY = 72  # -----END ... PRIVATE KEY BLOCK-----
LONG_RUN = 13

_LETTER, _DIGIT, _JOIN, _SPACE, _CHAIN, _FIRST, _UPPER, _MARK = 1, 2, 4, 8, 16, 32, 64, 128
Windows = npt.NDArray[np.int64]


def _classes() -> Bytes:
    table = np.zeros(256, np.uint8)
    for byte in range(128):
        char = chr(byte)
        table[byte] = (
            _LETTER * char.isalpha()
            + _DIGIT * char.isdigit()
            + _JOIN * (char in "_-")
            + _SPACE * (char in " \t\n\r\x0c\0")
            + _CHAIN * (char in " ./()-")
            + _FIRST * (char in "bBsSpP")  # of a word that _is_word knows
            + _UPPER * char.isupper()
            + _MARK * (char in "@:=")
        )
    return table


CLASSES = _classes()


@kernel
def find_windows(data: Bytes, offsets: Offsets, urls: bool, classes: Bytes, out: Windows) -> int:
    """Fill `out` (w, 3) with (document, start, end) in order, disjoint; returns w.

    data: (b,); offsets: (n+1,); out: room for b // 4 + 2 n rows suffices.
    """
    count = 0
    for document in range(len(offsets) - 1):
        low, high = max(0, offsets[document]), offsets[document + 1]
        first = count
        position = begin = piece = chained = low  # of the run, of its piece since - or _; digits followed so far
        digits = 0  # of the run
        unclosed = False  # a key has begun that never ends
        while position <= high:
            kind = classes[data[position]] if position < high else _SPACE
            if kind & 1:
                position += 1
                continue
            start = end = -1  # of the trigger
            before, after = 1, 1
            if kind & 2:
                digits += 1
                if position >= chained:
                    chained, enough = _follow_chain(data, position, high, classes)
                    if enough:
                        start, end, before, after = position, chained, BEFORE, AFTER
            else:
                if position - piece >= 3 and classes[data[piece]] & 32 and _is_word(data, piece, position - piece):
                    start, end, after = piece, position, SECRET
                if kind & 4:
                    if data[position] == 45 and not unclosed and _is_begin(data, position, high):
                        start, end = position, _end_of_key(data, position, high)
                        unclosed, after = end < 0, KEY
                        end = max(end, start)
                else:
                    if digits > 1 or position - begin >= LONG_RUN:
                        weight = _weigh_run(data, low, begin, position, digits, classes)
                        if weight:
                            if start >= 0:
                                count = _keep(
                                    data, low, high, start, end, 1, after, classes, out, first, count, document
                                )
                            start, end, before, after = begin, position, BEFORE if weight == 1 else 1, IBAN
                    if kind & 128:
                        reach = _weigh_mark(data, low, high, position, urls, classes)
                        if reach:
                            start = position if start < 0 else start
                            end, before, after = position, max(before, 40), max(after, reach)
                    begin, digits = position + 1, 0
                piece = position + 1
            if start >= 0:
                count = _keep(data, low, high, start, end, before, after, classes, out, first, count, document)
            position += 1
    return count


@kernel
def _keep(
    data: Bytes,
    low: int,
    high: int,
    start: int,
    end: int,
    before: int,
    after: int,
    classes: Bytes,
    out: Windows,
    first: int,
    count: int,
    document: int,
) -> int:
    """Add the window around [start, end), widened to white space and merged with those it touches."""
    start, end = max(low, start - before), min(high, end + after)
    widened = low  # up to here the end has been widened already
    while count > first and start <= out[count - 1, 2]:
        count -= 1
        start, widened = min(start, out[count, 1]), max(widened, out[count, 2])
    floor = out[count - 1, 2] if count > first else low
    while start > floor and classes[data[start - 1]] & 8 == 0:
        start -= 1
    if end <= widened:
        end = widened
    while end < high and classes[data[end]] & 8 == 0:
        end += 1
    if count > first and start <= floor:
        count -= 1
        start = out[count, 1]
    out[count, 0] = document
    out[count, 1] = start
    out[count, 2] = end
    return count + 1


@kernel
def _follow_chain(data: Bytes, position: int, high: int, classes: Bytes) -> tuple[int, bool]:
    """The end of the chain of digits that begins here, with gaps of up to three separators; and is it long enough."""
    digits, dots, gap, end = 0, 0, 0, position
    while position < high:
        kind = classes[data[position]]
        if kind & 2:
            if gap == 1 and data[position - 1] == 46:
                dots += 1
            digits += 1
            gap = 0
            end = position + 1
        elif kind & 16 and gap < 3:
            gap += 1
        else:
            break
        position += 1
    return end, digits >= 6 or (dots >= 3 and digits >= 4)


@kernel
def _weigh_run(data: Bytes, low: int, begin: int, end: int, digits: int, classes: Bytes) -> int:
    """What a run of letters, digits, - and _ may be: 0 nothing, 1 a number with letters, 2 a code, address or token."""
    if digits >= 2 and end - begin >= 4 and _is_iban(data, begin, end, classes):
        return 2
    solid = solid_digits = pairs = 0
    found = 0
    for at in range(begin, end + 1):
        if at == end or classes[data[at]] & 4:
            if solid >= 8 and solid_digits >= 4:
                found = 1
            if solid == 2:
                pairs += 1
            if solid >= 14 and _is_address(data, at - solid, solid):
                return 2
            solid = solid_digits = 0
            if at < end and data[at] == 45 and end - at > LONG_RUN and _is_prefix(data, at + 1):
                return 2
        else:
            solid += 1
            solid_digits += classes[data[at]] >> 1 & 1
    if found:
        return found
    length = end - begin
    if pairs >= 6 or (length >= LONG_RUN and _is_prefix(data, begin)):
        return 2
    if length >= 20 and begin - low >= 3 and data[begin - 1] == 46:  # SG. and ya29.
        last = data[begin - 2]
        return 2 if last == 71 or last == 57 else 0
    return 0


@kernel
def _is_iban(data: Bytes, begin: int, end: int, classes: Bytes) -> bool:
    """Two capitals and two digits where a stretch of the run begins."""
    for at in range(begin, end - 3):
        if (
            classes[data[at]] & 64
            and classes[data[at + 1]] & 64
            and classes[data[at + 2]] & 2
            and classes[data[at + 3]] & 2
            and (at == begin or classes[data[at - 1]] & 4)
        ):
            return True
    return False


@kernel
def _is_address(data: Bytes, begin: int, length: int) -> bool:
    """Of Bitcoin (1 3 2 m n and 26 or more, bc1, tb1) or Ethereum (0x)."""
    a, b, c = data[begin], data[begin + 1] | 32, data[begin + 2]
    if length >= 26 and (a == 49 or a == 51 or a == 50 or a == 109 or a == 110):
        return True
    if b == 99 and c == 49 and (a | 32 == 98 or a | 32 == 116):
        return True
    return bool((a | 32 == 116 and b == 98 and c == 49) or (length == 42 and a == 48 and b == 120))


@kernel
def _is_prefix(data: Bytes, begin: int) -> bool:
    """What the tokens of `credentials` begin with."""
    a, b, c = data[begin], data[begin + 1], data[begin + 2]
    if b == 107 and (c == 45 or c == 95):  # sk- pk_ rk-
        return bool(a == 115 or a == 112 or a == 114)
    if a == 65:  # AKIA ASIA ABIA ACCA AIza
        return bool((c == 73 and (b == 75 or b == 83 or b == 66)) or (b == 67 and c == 67) or (b == 73 and c == 122))
    if a == 103:  # ghp_ github_pat_ glpat-
        return bool(b == 104 or (b == 105 and c == 116) or b == 108)
    if a == 120:  # xoxb- xapp-
        return bool((b == 111 and c == 120) or (b == 97 and c == 112))
    return bool(
        (a == 101 and b == 121 and c == 74)  # eyJ
        or (a == 104 and b == 102 and c == 95)  # hf_
        or (a == 110 and b == 112 and c == 109)  # npm_
        or (a == 112 and b == 121 and c == 112)  # pypi-
        or (a == 71 and b == 79 and c == 67)  # GOCSPX-
        or (a == 100 and b == 111 and (c == 112 or c == 111 or c == 114))  # dop_ doo_ dor_
        or (a == 115 and b == 104 and c == 112)  # shpat_
        or (a == 119 and b == 104 and c == 115)  # whsec_
    )


@kernel
def _weigh_mark(data: Bytes, low: int, high: int, position: int, urls: bool, classes: Bytes) -> int:
    """How far to look after an `@`, `:` or `=`; 0 when it is nothing's."""
    byte = data[position]
    if byte == 64:
        return 1 if _is_within_word(data, low, high, position, classes) else 0
    strength = _names_secret(data, low, position)
    if strength and _holds_secret(data, position, high, strength, classes):
        return SECRET
    return 1 if byte == 58 and _splits_hex(data, low, high, position, urls, classes) else 0


@kernel
def _is_within_word(data: Bytes, low: int, high: int, position: int, classes: Bytes) -> bool:
    """True for an `@` with something before it that may end a name or password, and after it what may begin a host."""
    if position == low or position + 1 >= high:
        return False
    before, after = data[position - 1], data[position + 1]
    if classes[before] & 8 or before in (47, 64, 34, 39, 60, 62):  # / @ " ' < >
        return False
    return bool(after >= 128 or classes[after] & 3 or after == 91)


@kernel
def _names_secret(data: Bytes, low: int, position: int) -> int:
    """2 when what stands before a `:` or `=` ends like a word for a password, 1 like one for a key, else 0."""
    at = position - 1
    for _ in range(4):
        if at < low or not (data[at] == 32 or data[at] == 34 or data[at] == 39 or data[at] == 93 or data[at] == 42):
            break
        at -= 1
    if at - 2 < low:
        return 0
    a, b, c = data[at - 2] | 32, data[at - 1] | 32, data[at] | 32
    if c == 100:  # password, passwd, pwd
        return 2 if (a == 111 and b == 114) or (b == 119 and (a == 115 or a == 112)) else 0
    if c == 101:  # passphrase, passcode
        return 2 if (a == 97 and b == 115) or (a == 111 and b == 100) else 0
    if c == 116:  # passwort, secret
        return 2 if a == 111 and b == 114 else int(a == 114 and b == 101)
    if c == 115:  # pass
        return 2 if a == 97 and b == 115 else 0
    if c == 110:  # token
        return int(a == 107 and b == 101)
    if c == 121:  # key
        return int(a == 107 and b == 101)
    return int(a == 105 and b == 97 and c == 108)  # credential


@kernel
def _holds_secret(data: Bytes, position: int, high: int, strength: int, classes: Bytes) -> bool:
    """True when after the mark comes no plain word: one with a byte that is no letter, and for keys with a digit."""
    at = position + 1
    for _ in range(3):  # => := and a space
        if at < high and (data[at] == 32 or data[at] == 61 or data[at] == 62):
            at += 1
    quote = 0
    if at < high and (data[at] == 34 or data[at] == 39):
        quote = data[at]
        at += 1
    begin, digits, others = at, 0, 0
    while at < high and at < begin + 520:
        byte = data[at]
        if byte == 10 or byte == quote or (quote == 0 and (classes[byte] & 8 or byte == 44 or byte == 59)):
            break
        digits += classes[byte] >> 1 & 1
        others += classes[byte] & 9 == 0
        at += 1
    return at - begin >= 4 and (others > 0 if strength == 2 else digits > 0)


@kernel
def _splits_hex(data: Bytes, low: int, high: int, position: int, urls: bool, classes: Bytes) -> bool:
    """True when this colon may stand in an IPv6 or MAC address, or in `://` where that is asked for."""
    if urls and position + 2 < high and data[position + 1] == 47 and data[position + 2] == 47:
        return True
    at = position + 1
    while at < high and at < position + 5 and _is_hex(data[at]):
        at += 1
    if at >= high or data[at] != 58:
        return False
    followed = at + 1 < high and _is_hex(data[at + 1])
    preceded = position > low and _is_hex(data[position - 1])
    if at == position + 1 and not followed and not preceded:
        return False
    left = position - 1
    while left >= low and left > position - 5 and _is_hex(data[left]):
        left -= 1
    # std::vec is no address: the word before the colons would have to be hexadecimal from its start
    return left < low or classes[data[left]] & 3 == 0


@kernel
def _is_hex(byte: int) -> bool:
    return bool(48 <= byte <= 57 or 97 <= byte | 32 <= 102)


@kernel
def _is_begin(data: Bytes, position: int, high: int) -> bool:
    """-----BEGIN"""
    if position + 10 > high:
        return False
    for at in range(position, position + 5):
        if data[at] != 45:
            return False
    a, b, c, d, e = data[position + 5], data[position + 6], data[position + 7], data[position + 8], data[position + 9]
    return bool(a == 66 and b == 69 and c == 71 and d == 73 and e == 78)


@kernel
def _end_of_key(data: Bytes, position: int, high: int) -> int:
    """Where the first `-----END` after here stands, or -1 when there is none."""
    dashes = 0
    for at in range(position + 10, high - 2):
        if data[at] == 45:
            dashes += 1
        else:
            if dashes >= 5 and data[at] == 69 and data[at + 1] == 78 and data[at + 2] == 68:
                return at - 5
            dashes = 0
    return -1


@kernel
def _is_word(data: Bytes, begin: int, length: int) -> bool:
    """BIC, SWIFT, passw..., passc..., passph... in any case."""
    if length < 3 or length > 10:
        return False
    a, b, c = data[begin] | 32, data[begin + 1] | 32, data[begin + 2] | 32
    if a == 98 and b == 105 and c == 99:
        return length == 3
    if length < 5 or (a != 115 and a != 112):
        return False
    d, e = data[begin + 3] | 32, data[begin + 4] | 32
    if a == 115 and b == 119:
        return bool(length == 5 and c == 105 and d == 102 and e == 116)
    if b == 97 and c == 115 and d == 115:
        return bool(e == 119 or e == 99 or (e == 112 and length > 5 and (data[begin + 5] | 32) == 104))
    return False
