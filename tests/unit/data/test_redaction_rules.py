"""Each kind as people write it: found with its words around it, and left where it only looks like one."""

from __future__ import annotations

import pytest

from espalier.data.pii.redact import Redactor
from espalier.data.pii.rules import KINDS
from espalier.data.pii.spec import RedactSpec

REDACTOR = Redactor(RedactSpec(kinds=KINDS))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        # contacts
        ("an jörg.müller@bücher.example, bitte", "an [EMAIL], bitte"),
        ("联系张三foo@bar.example谢谢", "联系张三[EMAIL]谢谢"),
        ("see https://people.example/~ann.", "see [URL]."),
        ("from 2001:db8::ff00:42:8329 port 22", "from [IP] port 22"),
        ("ssh ann@[fe80::1ff:fe23:4567:890a]", "ssh ann@[[IP]]"),
        ("mac 00:1b:44:11:3a:b7 and 00-1B-44-11-3A-B7", "mac [MAC] and [MAC]"),
        ("(96) 627-277 or 027 896 92 86", "[PHONE] or [PHONE]"),
        ("Tél : 01 23 45 67 89", "Tél : [PHONE]"),
        ("69 987 88 37 office", "[PHONE] office"),
        # banks
        ("BIC: DEUTDEFF500", "BIC: [BANK_CODE]"),
        ("SWIFT/BIC code NWBKGB2L", "SWIFT/BIC code [BANK_CODE]"),
        ("routing number 111000025", "routing number [BANK_CODE]"),
        ("to 1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "to [CRYPTO]"),
        ("to bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "to [CRYPTO]"),
        ("to 0x52908400098527886E0F7030069857D2E4169EE7", "to [CRYPTO]"),
        # ids that speak for themselves
        ("NINO AB 12 34 56 C", "NINO [NATIONAL_ID]"),
        ("DNI 12345678-Z, NIE X2482300W", "DNI [NATIONAL_ID], NIE [NATIONAL_ID]"),
        ("CF RCCMNL83S18D969H", "CF [NATIONAL_ID]"),
        ("NIR 2 95 10 99 126 111 93", "NIR [NATIONAL_ID]"),
        ("NIR 253072B07300470", "NIR [NATIONAL_ID]"),
        ("CPF 111.444.777-35, CNPJ 11.222.333/0001-81", "CPF [NATIONAL_ID], CNPJ [NATIONAL_ID]"),
        ("nummer 85.07.30-033.28", "nummer [NATIONAL_ID]"),
        ("811218-9876", "[NATIONAL_ID]"),
        ("131052-308T", "[NATIONAL_ID]"),
        ("f.nr. 15108695088", "f.nr. [NATIONAL_ID]"),
        ("身份证11010519491231002X", "身份证[NATIONAL_ID]"),
        ("ABN 51 824 753 556", "ABN [NATIONAL_ID]"),
        ("S1234567D", "[NATIONAL_ID]"),
        ("HEGG560427MVZRRL04", "[NATIONAL_ID]"),
        ("ID 8001015009087", "ID [NATIONAL_ID]"),
        ("971013-9019902", "[NATIONAL_ID]"),
        # ids that need a word
        ("PESEL: 44051401359", "PESEL: [NATIONAL_ID]"),
        ("NHS no. 943 476 5870", "NHS no. [NATIONAL_ID]"),
        ("Steuer-ID 86 095 742 719", "Steuer-ID [NATIONAL_ID]"),
        ("BSN 111222333", "BSN [NATIONAL_ID]"),
        ("Aadhaar 2341 2341 2346", "Aadhaar [NATIONAL_ID]"),
        ("PAN card ABCPD1234E", "PAN card [NATIONAL_ID]"),
        ("SIN 046-454-286", "SIN [NATIONAL_ID]"),
        ("tax file number 123 456 782", "tax file number [NATIONAL_ID]"),
        ("social security number 078 05 1120", "social security number [SSN]"),
        ("ITIN 912-90-3456", "ITIN [SSN]"),
        ("my passport number is C01X00T47", "my passport number is [DOCUMENT]"),
        ("driver's license number is 481195160", "driver's license number is [DOCUMENT]"),
        ("born on 12/27/1986", "born on [BIRTH_DATE]"),
        ("Date of birth: 1986-12-27", "Date of birth: [BIRTH_DATE]"),
        ("at 40.712776, -74.005974", "at [COORDINATES]"),
        # secrets
        ("postgres://app:s3cr3t-pw@db.example/x", "postgres://[SECRET]@db.example/x"),
        ('"password": "hunter2hunter2"', '"password": "[SECRET]"'),
        ("DB_PASSWORD=hunter2hunter2", "DB_PASSWORD=[SECRET]"),
        ("my password is Tr0ub4dor&3.", "my password is [SECRET]."),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = [SECRET]"),
        ("AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
         "AccountKey=[SECRET]"),
        ("api_key: 'k3y-9f8e7d6c5b4a'", "api_key: '[SECRET]'"),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4", "Bearer [SECRET]"),
        ("sk-ant-api03-" + "aB3_" * 10, "[SECRET]"),
        ("ghp_" + "a1B2" * 9, "[SECRET]"),
        ("glpat-" + "x1Y2" * 5, "[SECRET]"),
        ("xoxb-123456789012-abcdefghij", "[SECRET]"),
        ("hf_" + "aBcD" * 8, "[SECRET]"),
        ("AIza" + "Sy0_-" * 7, "[SECRET]"),
    ],
)  # fmt: skip
def test_each_kind_is_found_as_people_write_it(text: str, redacted: str) -> None:
    assert REDACTOR.redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "the train leaves at 12:30:45, track 4:0:0",
        "std::vector<int> a[1::2]; cafe::add(x)",
        "released in version 3.6.1.1 and RFC 7692 section 7.2.3.1",
        "Suite 330, Boston, MA  02111-1307",
        "as defined in Clause 252.227-7013",
        "such as Microsoft Office 97-2003",
        "the years 2021 2022 2023 and 1998-2005",
        "44051401359 units of 111222333 were sold, 9434765870 in all",  # no word says what they are
        "2341 2341 2346",
        "IMEI 352099001761481",
        "in 1234567890123456 steps",
        "the meeting on 12/27/1986",
        "ABCPD1234E",
        "DEUTDEFF is eight letters",
        "BIC: ABCDXX22 is nobody's",  # no country XX
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",  # checksum
        "password is required; the password: none",
        "password = getpass.getpass()",
        "def login(user: str, password: str | None = None, token: Token = tokens.first)",
        "private_key: PKCS7PrivateKeyTypes",
        "key = sort_keys[0]; secret = keypair[:32]",
        "the form is postgres://user:password@db/",
        "host key sk-ecdsa-sha2-nistp256",
        "the pass: very steep",
        "@decorated",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "id 3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "0123456789abcdef",
        "pi is 3.14159265358979",
        "GPS 12.5, 7.25",
        "12.345.678 inhabitants, 1 000 000 more",
    ],
)
def test_what_only_looks_like_a_kind_is_left(text: str) -> None:
    assert REDACTOR.redact(text) == text
