"""The windows lose nothing: what the rules find in windows is what they find in the whole text, for every rule."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier.data.kernels.buffers import view_texts
from espalier.data.pii import codes, contacts, credentials
from espalier.data.pii.finding import Finding
from espalier.data.pii.numerals import number_rules
from espalier.data.pii.rules import KINDS, Ruleset, load_rules
from espalier.data.pii.windows import find_windows, scan_windows

_PUNCTUATION = "@ . : :: = := => - -- _ / ( ) + # , ; ' \" [ ] * < >"
_SPACES = [" ", "  ", "\n", "\t", "\r\n", "\f", "\x0b", "\0", "\u00a0"]
_LETTERS = ["é", "ß", "漢字", "🙂", "x", "word", "Another", "\u212aey: abcdefg1", "pa\u017fsword: abcdefg1", "std::vec"]
_NUMBERS = "1 12 123 1234 12345 0171 2345678 +49 209 (0) 4111 1111 x04732 00 2024 7"
# At least one for every rule; those that need context stand beside it.
EXAMPLES = r"""a@b.ee|jörg@müller.de|foo.bar+x@mail.example.org|https://x.org/a?b=c|http://u:pw1x@h.org/
postgres://user:s3cretpw@db:5432/x|555-0142|call me at 555-0142|69 987 88 37 office|+49 209 7654906
001-825-741-0957x5184
4111111111111111|4111 1111 1111 1111|078-05-1120|ssn 078051120|1998-06-28|born on 12/27/1986|DOB: 12.05.77
DE89 3704 0044 0532 0130 00|GB29NWBK60161331926819|MT84 MALT 0110 0001 2345 MTLC AST0 01S|192.0.2.244|1.1.1.1
2001:db8::1|fe80::1|dead:beef::1|2001:0db8:0000:0000:0000:ff00:0042:8329|12:30:45|aa:bb:cc:dd:ee:0f|aa-bb-cc-dd-ee-0f
password: hunter2hunter2|my_password = S3cr3t!x|pwd="two words 7"|password is hunter2x|passphrase was Abc123!
secret: 8f2c91d0aa|api_key = 'k3y-9f8e7d6c5b4a'|token => 1a2b3c4d5e6f|dbPassword: {x}|key: value
sk-proj-abcdefghijklmnop1234|foo-sk-live-abcdefghijklmnopq1|AKIAIOSFODNN7EXAMPLE|AKIABCDEFGHIJKLMNOPQ
ghp_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa|xoxb-123456789012-abcdefghij|hf_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
eyJhbGciOiJ.eyJzdWIiOiIx.SflKxwRJSM|AIzac-c-c-c-c-c-c-c-c-c-c-c-c-c-c-c-c-c-d|ya29.q_q_q_q_q_q_q_q_q_q_q_q_
SG.aaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb|whsec_abcdefgh+bcd/fghijklmnop
123456789:AAzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz|glpat-qqqqqqqqqqqqqqqqqqqq|-----BEGIN PRIVATE KEY-----
-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----|-----END CERTIFICATE-----|-----BEGIN
BIC: DEUTDEFF|SWIFT code DEUTDEFF500|AA123456C|AB 12 34 56 C|12345678Z|X2482300W|RCCMNL83S18D969H|HEGG560427MVZRRL04
S1234567D|131052-308T|11010519491231002X|pan ABCPD1234E|passport C01X00T47|driver's license number is 481195160
40.712776, -74.005974|1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa|bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4
0x52908400098527886E0F7030069857D2E4169EE7|253072B07300470|aba routing 111000025|cpf 111.444.777-35|nhs 943 476 5870
BIC|swift|passport|ssn|call me at|tel|born|password|pass|key|fax|office|ext. 12"""
_EXAMPLES = [part.replace("\\n", "\n") for line in EXAMPLES.splitlines() for part in line.split("|")]
_pieces = st.one_of(
    st.sampled_from(_EXAMPLES),
    st.sampled_from(_PUNCTUATION.split() + _SPACES + _LETTERS + _NUMBERS.split()),
    st.text("aZ09 -_.:=@/ésp", max_size=10),
)
_texts = st.builds(
    lambda glue, pieces: glue.join(pieces),
    st.sampled_from(["", "", " ", "\n", "-", "_"]),
    st.lists(_pieces, max_size=25),
)
RULESETS = [rules for kinds in (KINDS, *((kind,) for kind in KINDS)) if (rules := load_rules(kinds))]
Found = dict[int, list[Finding]]


def scan_both(texts: list[str], rules: Ruleset) -> tuple[Found, Found]:
    """What is found in windows, and in the whole texts."""
    data, edges = view_texts(pa.array(texts, pa.large_string()))
    windows = find_windows(data, edges, urls="URL" in rules.kinds)
    whole = np.stack([np.arange(len(texts)), edges[:-1], edges[1:]], axis=1)
    assert (windows[:, 1] < windows[:, 2]).all() and (windows[1:, 1] >= windows[:-1, 2]).all()
    assert (edges[windows[:, 0]] <= windows[:, 1]).all() and (windows[:, 2] <= edges[windows[:, 0] + 1]).all()
    return dict(scan_windows(data, edges, windows, rules)), dict(scan_windows(data, edges, whole, rules))


@given(st.lists(_texts, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_nothing_is_found_in_a_text_that_is_not_found_in_its_windows(texts: list[str]) -> None:
    for rules in RULESETS:
        windowed, whole = scan_both(texts, rules)
        assert windowed == whole


@pytest.mark.parametrize("text", _EXAMPLES)
def test_each_example_far_from_anything_is_found_in_its_window(text: str) -> None:
    far = ["lorem ipsum " * 60 + text + " dolor sit" * 60, "漢字" * 300 + " " + text + "\n" + "ü" * 500]
    for rules in RULESETS:
        windowed, whole = scan_both(far, rules)
        assert windowed == whole


def test_every_rule_has_an_example() -> None:
    _, whole = scan_both(_EXAMPLES, RULESETS[0])
    found = {finding.rule for findings in whole.values() for finding in findings}
    assert found >= {
        *("email", "url", "ipv4", "ipv6", "mac", "private_key", "token", "assigned", "spoken", "phone", "born"),
        *(
            "phone.announced",
            "card",
            "iban",
            "bic",
            "btc",
            "segwit",
            "eth",
            "us.ssn",
            "us.routing",
            "gb.nino",
            "gb.nhs",
        ),
        *("es.dni", "es.nie", "it.codice_fiscale", "mx.curp", "sg.nric", "fi.hetu", "cn.resident", "fr.nir", "in.pan"),
        *("br.cpf", "lettered", "decimal"),
    }


def test_prose_has_few_windows_and_a_text_without_triggers_has_none() -> None:
    prose = "The quick brown fox, they say, jumped over a lazy dog; it was 1998 or so. " * 100
    data, edges = view_texts(pa.array([prose, prose + " write to a@b.ee " + prose], pa.large_string()))
    assert [document for document, _, _ in find_windows(data, edges).tolist()] == [1]


def test_a_key_that_never_ends_is_looked_for_once() -> None:
    text = "-----BEGIN PRIVATE KEY-----\nMIIE " * 2000
    windowed, whole = scan_both([text], RULESETS[0])
    assert windowed == whole == {}


@given(_texts)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_every_match_begins_as_its_rule_says_and_is_no_longer(text: str) -> None:
    for rule in (contacts.MAIL, *credentials.RULES, *contacts.RULES, *codes.RULES, *number_rules(frozenset(KINDS))):
        found = re2.compile(rule.pattern.encode()).search(text.encode())
        if found is not None:
            assert re.match(f"[{rule.first}]".encode("latin-1"), found.group()), rule
            assert re2.compile((rule.opening or rule.pattern).encode()).match(text.encode(), found.start()), rule
            assert found.end() - found.start() <= rule.longest_bytes
