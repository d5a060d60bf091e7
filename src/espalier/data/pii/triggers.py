"""The stretches of a text in which a pattern could match at all, found in one pass over its bytes (numba).

Every match of every rule contains one of these triggers, and its window holds the match and the context its judge may
look at; so patterns that see windows alone find what they would have found in the whole text. In ordinary prose or
code windows are a hundredth of it. `tests/unit/data/test_redaction_windows.py` holds each rule to this.

Triggers: `@`; digits in a chain (6 of them, or 4 with three dots); letters and digits mixed without a break; a
country's letters with two digits (IBAN); hexadecimal groups between colons or hyphens (IPv6, MAC); a long run without a
break; a word for a secret before `:` or `=`; `passw...`; `BIC` and `SWIFT`; `-----BEGIN`; `://` where URLs are wanted.

Knows byte classes only; what a window holds is for the rules to say.
"""

from __future__ import annotations

import numpy as np

from espalier.data.kernels.compiling import kernel

REACH = 72  # bytes kept before and after a trigger, and then as far as there is no white space
KEYWORD_REACH = 224  # bytes kept after a word for a secret: its value may be a quoted sentence
LONG_RUN = 20

_LETTER, _DIGIT, _JOIN, _SPACE, _CHAIN, _HEX, _UPPER = 1, 2, 4, 8, 16, 32, 64


def _classes() -> np.ndarray:
    table = np.zeros(256, np.uint8)
    for byte in range(128):
        char = chr(byte)
        table[byte] = (
            _LETTER * char.isalpha()
            + _DIGIT * char.isdigit()
            + _JOIN * (char in "_-")
            + _SPACE * (char in " \t\n\r\x0c\0")
            + _CHAIN * (char in " ./()-")
            + _HEX * (char in "0123456789abcdefABCDEF")
            + _UPPER * char.isupper()
        )
    return table


CLASSES = _classes()


@kernel
def find_windows(data, offsets, wanted_urls, classes, out):  # type: ignore[no-untyped-def]
    """Fill `out` (w, 3) with (document, start, end) in order, disjoint; returns w.

    data: (b,) uint8; offsets: (n+1,) int64; out: room for len(data) // 64 + 2 n rows suffices.
    """
    count = 0
    for document in range(len(offsets) - 1):
        low, high = offsets[document], offsets[document + 1]
        first = count
        chained = low  # digits before this have been followed
        closed = True  # until a key is seen to begin that never ends
        position = low
        while position < high:
            byte = data[position]
            kind = classes[byte]
            if kind & 7 == 0:
                if byte == 64:
                    count = _keep(data, low, high, position, position, REACH, classes, out, first, count, document)
                elif byte == 58 or byte == 61:
                    if _names_secret(data, low, position):
                        count = _keep(
                            data,
                            low,
                            high,
                            position - 40,
                            position,
                            KEYWORD_REACH,
                            classes,
                            out,
                            first,
                            count,
                            document,
                        )
                    if byte == 58 and _splits_hex(data, low, high, position, classes, wanted_urls):
                        count = _keep(data, low, high, position, position, REACH, classes, out, first, count, document)
                position += 1
                continue
            # a run of letters, digits, _ and -
            begin, digits, solid, longest, pieces = position, 0, 0, 0, 0
            solid_digits, mixed = 0, False
            while position < high:
                byte = data[position]
                kind = classes[byte]
                if kind & 7 == 0:
                    break
                if kind & 4:
                    if solid == 2:
                        pieces += 1
                    elif solid and _is_word(data, position - solid, solid):
                        count = _keep(
                            data, low, high, position, position, KEYWORD_REACH, classes, out, first, count, document
                        )
                    solid = solid_digits = 0
                    if byte == 45 and closed and position + 10 <= high and _is_begin(data, position):
                        end = _end_of_key(data, position, high)
                        closed = end > position
                        count = _keep(data, low, high, position, end, REACH, classes, out, first, count, document)
                else:
                    solid += 1
                    if solid > longest:
                        longest = solid
                    if kind & 2:
                        digits += 1
                        solid_digits += 1
                        if position >= chained:
                            chained, enough = _follow_chain(data, position, high, classes)
                            if enough:
                                count = _keep(
                                    data, low, high, position, chained, REACH, classes, out, first, count, document
                                )
                    if solid >= 8 and solid_digits >= 4:
                        mixed = True
                position += 1
            length = position - begin
            if solid == 2:
                pieces += 1
            if (
                mixed
                or (length >= LONG_RUN and (digits > 0 or longest >= LONG_RUN or _is_prefix(data, begin)))
                or (pieces >= 6)
                or (length >= 13 and data[begin] == 101 and data[begin + 1] == 121 and data[begin + 2] == 74)
                or (digits >= 2 and length >= 4 and _is_iban(data, begin, length, classes))
            ):
                count = _keep(data, low, high, begin, position, REACH, classes, out, first, count, document)
            if solid and _is_word(data, position - solid, solid):
                count = _keep(data, low, high, position, position, KEYWORD_REACH, classes, out, first, count, document)
    return count


@kernel
def _keep(data, low, high, start, end, reach, classes, out, first, count, document):  # type: ignore[no-untyped-def]
    """Add the window around [start, end), merged with those it touches."""
    start = max(low, start - REACH)
    end = min(high, end + reach)
    floor = out[count - 1, 2] if count > first else low
    while start > floor and classes[data[start - 1]] & 8 == 0:
        start -= 1
    if count > first and end <= floor:
        end = floor
    else:
        while end < high and classes[data[end]] & 8 == 0:
            end += 1
    while count > first and start <= out[count - 1, 2]:
        count -= 1
        start = min(start, out[count, 1])
        end = max(end, out[count, 2])
    out[count, 0] = document
    out[count, 1] = start
    out[count, 2] = end
    return count + 1


@kernel
def _follow_chain(data, position, high, classes):  # type: ignore[no-untyped-def]
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
def _names_secret(data, low, position):  # type: ignore[no-untyped-def]
    """True when what stands before a `:` or `=` ends like password, pwd, secret, key, token, credential, pass, auth."""
    at = position - 1
    for _ in range(4):
        if at < low or not (data[at] == 32 or data[at] == 34 or data[at] == 39 or data[at] == 93 or data[at] == 42):
            break
        at -= 1
    if at - 2 < low:
        return False
    last = (data[at - 2] | 32) << 16 | (data[at - 1] | 32) << 8 | (data[at] | 32)
    return (
        last == 0x6F7264  # ord: password
        or last == 0x737764  # swd: passwd
        or last == 0x707764  # pwd
        or last == 0x617365  # ase: passphrase
        or last == 0x6F7274  # ort: passwort
        or last == 0x6F6465  # ode: passcode
        or last == 0x726574  # ret: secret
        or last == 0x6B6579  # key
        or last == 0x6B656E  # ken: token
        or last == 0x617373  # ass: pass
        or last == 0x69616C  # ial: credential
    )


@kernel
def _splits_hex(data, low, high, position, classes, wanted_urls):  # type: ignore[no-untyped-def]
    """True when this colon may stand in an IPv6 or MAC address, or in `://` where that is asked for."""
    if wanted_urls and position + 2 < high and data[position + 1] == 47 and data[position + 2] == 47:
        return True
    at = position + 1
    while at < high and at < position + 5 and classes[data[at]] & 32:
        at += 1
    if at >= high or data[at] != 58:
        return False
    if (
        at == position + 1
        and (at + 1 >= high or classes[data[at + 1]] & 32 == 0)
        and (position == low or classes[data[position - 1]] & 32 == 0)
    ):
        return False
    left = position - 1
    while left >= low and left > position - 5 and classes[data[left]] & 32:
        left -= 1
    # std::vec is no address: the word before the colons would have to be hexadecimal from its start
    return left < low or classes[data[left]] & 3 == 0


@kernel
def _is_begin(data, position):  # type: ignore[no-untyped-def]
    """-----BEGIN"""
    return (
        data[position + 1] == 45
        and data[position + 2] == 45
        and data[position + 3] == 45
        and data[position + 4] == 45
        and data[position + 5] == 66
        and data[position + 6] == 69
        and data[position + 7] == 71
        and data[position + 8] == 73
        and data[position + 9] == 78
    )


@kernel
def _end_of_key(data, position, high):  # type: ignore[no-untyped-def]
    """Where the first `-----END` after here stands, or here when there is none."""
    at = position + 10
    while at + 8 <= high:
        if (
            data[at] == 45
            and data[at + 1] == 45
            and data[at + 2] == 45
            and data[at + 3] == 45
            and data[at + 4] == 45
            and data[at + 5] == 69
            and data[at + 6] == 78
            and data[at + 7] == 68
        ):
            return at
        at += 1
    return position


@kernel
def _is_prefix(data, begin):  # type: ignore[no-untyped-def]
    """The first letters of issued keys that may have no digit at all: sk- pk- rk- (or _), AIz, xox, gh?_, glp, hf_."""
    a, b, c = data[begin], data[begin + 1], data[begin + 2]
    return (
        (b == 107 and (a == 115 or a == 112 or a == 114) and (c == 45 or c == 95))
        or (a == 65 and b == 73 and c == 122)
        or (a == 120 and b == 111 and c == 120)
        or (a == 103 and (b == 104 or (b == 108 and c == 112)))
        or (a == 104 and b == 102 and c == 95)
    )


@kernel
def _is_iban(data, begin, length, classes):  # type: ignore[no-untyped-def]
    """Two capitals and two digits where a solid stretch of the run begins."""
    for at in range(begin, begin + length - 3):
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
def _is_word(data, begin, length):  # type: ignore[no-untyped-def]
    """BIC, SWIFT, passw..., passc..., passph... in any case."""
    if length < 3 or length > 10:
        return False
    a, b, c = data[begin] | 32, data[begin + 1] | 32, data[begin + 2] | 32
    if a == 98 and b == 105 and c == 99:
        return length == 3
    if length < 5:
        return False
    d, e = data[begin + 3] | 32, data[begin + 4] | 32
    if a == 115 and b == 119:
        return length == 5 and c == 105 and d == 102 and e == 116
    if a == 112 and b == 97 and c == 115 and d == 115:
        return e == 119 or e == 99 or (e == 112 and length > 5 and (data[begin + 5] | 32) == 104)
    return False
