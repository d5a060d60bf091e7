"""Numbers with check digits: published examples pass; what the method guarantees to notice is noticed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espalier.data.pii import nationalids as ids
from espalier.data.pii.checksums import base58check, bech32, luhn, mod_11_2, mod_11_10, verhoeff
from espalier.data.pii.numerals import is_card

Valid = Callable[[str], bool]
# Examples of the issuers' own pages, the standards, or Wikipedia's articles on the numbers; none is anybody's.
PUBLISHED: list[tuple[Valid, str]] = [
    (is_card, "4111111111111111"),
    (is_card, "378282246310005"),
    (is_card, "5555555555554444"),
    (is_card, "2223003122003222"),
    (is_card, "6011111111111117"),
    (is_card, "3530111333300000"),
    (is_card, "30569309025904"),
    (is_card, "6304000000000000"),
    (ids.is_us_ssn, "078051120"),
    (ids.is_us_itin, "912903456"),
    (ids.is_us_routing, "111000025"),
    (ids.is_us_routing, "021000021"),
    (ids.is_gb_nhs, "9434765870"),
    (ids.is_gb_nhs, "4010232137"),
    (ids.is_gb_nino, "QQ123456C"),
    (ids.is_de_steuer_id, "86095742719"),
    (ids.is_de_steuer_id, "65929970489"),
    (ids.is_fr_nir, "295109912611193"),
    (ids.is_fr_nir, "253072B07300470"),
    (ids.is_fr_nir, "253072A07300443"),
    (ids.is_es_dni, "12345678Z"),
    (ids.is_es_dni, "54362315K"),
    (ids.is_es_dni, "X2482300W"),
    (ids.is_it_codice_fiscale, "RCCMNL83S18D969H"),
    (ids.is_it_codice_fiscale, "MRTMTT25D09F205Z"),
    (ids.is_nl_bsn, "111222333"),
    (ids.is_nl_bsn, "123456782"),
    (ids.is_be_national, "85073003328"),
    (ids.is_be_national, "93051822361"),
    (ids.is_pl_pesel, "44051401359"),
    (ids.is_pl_pesel, "02070803628"),
    (ids.is_se_personnummer, "8112189876"),
    (ids.is_se_personnummer, "6408233234"),
    (ids.is_fi_hetu, "131052-308T"),
    (ids.is_dk_cpr_summed, "2110625629"),
    (ids.is_no_fodselsnummer, "15108695088"),
    (ids.is_no_fodselsnummer, "01010750160"),
    (ids.is_br_cpf, "11144477735"),
    (ids.is_br_cpf, "39053344705"),
    (ids.is_br_cnpj, "11222333000181"),
    (ids.is_br_cnpj, "16727230000197"),
    (ids.is_in_aadhaar, "234123412346"),
    (ids.is_in_aadhaar, "999941057058"),
    (ids.is_ca_sin, "046454286"),
    (ids.is_ca_sin, "130692544"),
    (ids.is_au_tfn, "123456782"),
    (ids.is_au_tfn, "876543210"),
    (ids.is_au_abn, "51824753556"),
    (ids.is_au_abn, "53004085616"),
    (ids.is_za_id, "8001015009087"),
    (ids.is_za_id, "7503305044089"),
    (ids.is_cn_resident, "11010519491231002X"),
    (ids.is_cn_resident, "360426199101010071"),
    (ids.is_kr_rrn, "9710139019902"),
    (ids.is_sg_nric, "S1234567D"),
    (ids.is_sg_nric, "T1234567J"),
    (ids.is_sg_nric, "F1234567N"),
    (ids.is_sg_nric, "G1234567X"),
    (ids.is_sg_nric, "M1234567K"),
    (ids.is_mx_curp, "BOXW310820HNERXN09"),
    (ids.is_mx_curp, "HEGG560427MVZRRL04"),
    (ids.is_iban, "DE89370400440532013000"),
    (ids.is_iban, "GB29NWBK60161331926819"),
    (ids.is_iban, "FR1420041010050500013M02606"),
]
COUNTEREXAMPLES: list[tuple[Valid, str]] = [
    (is_card, "0000000000000000"),
    (is_card, "1234567812345670"),  # Luhn holds, no network's
    (is_card, "352099001761481"),  # an IMEI
    (ids.is_us_ssn, "666051120"),
    (ids.is_us_ssn, "900051120"),
    (ids.is_us_ssn, "078001120"),
    (ids.is_us_itin, "912493456"),
    (ids.is_us_routing, "111000026"),
    (ids.is_gb_nhs, "1111111111"),
    (ids.is_gb_nino, "GB123456C"),
    (ids.is_de_steuer_id, "11145678903"),  # three in a row
    (ids.is_de_steuer_id, "12345678903"),  # none twice
    (ids.is_fr_nir, "295159912611193"),  # month 15
    (ids.is_it_codice_fiscale, "RCCMNL83S18D969I"),
    (ids.is_pl_pesel, "44051401358"),
    (ids.is_se_personnummer, "8113189872"),  # month 13
    (ids.is_fi_hetu, "310252-308T"),
    (ids.is_dk_cpr, "3202625629"),
    (ids.is_no_fodselsnummer, "15108695077"),
    (ids.is_br_cpf, "11111111111"),
    (ids.is_in_aadhaar, "134123412346"),
    (ids.is_au_abn, "51824753557"),
    (ids.is_za_id, "8001015009088"),
    (ids.is_cn_resident, "110105194912310021"),
    (ids.is_kr_rrn, "9710139019903"),
    (ids.is_sg_nric, "S1234567E"),
    (ids.is_mx_curp, "BOXW310820HNERXN08"),
]
# What theory says of each method: weights that are no multiples of a prime modulus above 9 notice every wrong digit;
# where the weights of neighbours differ as well, every transposition too.
NOTICES_WRONG_DIGITS = (
    is_card,
    ids.is_us_routing,
    ids.is_gb_nhs,
    ids.is_fr_nir,
    ids.is_es_dni,
    ids.is_it_codice_fiscale,
    ids.is_nl_bsn,
    ids.is_pl_pesel,
    ids.is_se_personnummer,
    ids.is_fi_hetu,
    ids.is_dk_cpr_summed,
    ids.is_no_fodselsnummer,
    ids.is_in_aadhaar,
    ids.is_ca_sin,
    ids.is_au_tfn,
    ids.is_au_abn,
    ids.is_za_id,
    ids.is_cn_resident,
    ids.is_sg_nric,
    ids.is_de_steuer_id,
    ids.is_iban,
)
NOTICES_TRANSPOSITIONS = (
    ids.is_gb_nhs,
    ids.is_fr_nir,
    ids.is_es_dni,
    ids.is_nl_bsn,
    ids.is_fi_hetu,
    ids.is_no_fodselsnummer,
    ids.is_in_aadhaar,
    ids.is_au_tfn,
    ids.is_au_abn,
    ids.is_cn_resident,
    ids.is_sg_nric,
    ids.is_iban,
)


@pytest.mark.parametrize(("is_valid", "code"), PUBLISHED)
def test_published_examples_are_valid(is_valid: Valid, code: str) -> None:
    assert is_valid(code)


@pytest.mark.parametrize(("is_valid", "code"), COUNTEREXAMPLES)
def test_numbers_that_nobody_was_given_are_not(is_valid: Valid, code: str) -> None:
    assert not is_valid(code)


def examples(is_valid: Valid) -> list[str]:
    """The published numbers of a scheme, and others made from them by changing digits until they are valid again."""
    published = [code for each, code in PUBLISHED if each is is_valid]
    chance = random.Random(7)
    made = list(published)
    for _ in range(20_000):
        code = list(chance.choice(published))
        for place in chance.sample([at for at, char in enumerate(code) if char.isdigit()], 3):
            code[place] = chance.choice("0123456789")
        if is_valid("".join(code)) and "".join(code) not in made:
            made.append("".join(code))
        if len(made) > 30:
            break
    return made


@pytest.mark.parametrize("is_valid", NOTICES_WRONG_DIGITS, ids=lambda each: each.__name__)
def test_every_wrong_digit_is_noticed(is_valid: Valid) -> None:
    for code in examples(is_valid):
        for place, char in enumerate(code):
            for wrong in "0123456789" if char.isdigit() else "":
                assert wrong == char or not is_valid(code[:place] + wrong + code[place + 1 :]), (code, place, wrong)


@pytest.mark.parametrize("is_valid", NOTICES_TRANSPOSITIONS, ids=lambda each: each.__name__)
def test_every_transposition_of_neighbouring_digits_is_noticed(is_valid: Valid) -> None:
    for code in examples(is_valid):
        for place in range(len(code) - 1):
            first, second = code[place : place + 2]
            if first != second and first.isdigit() and second.isdigit():
                assert not is_valid(code[:place] + second + first + code[place + 2 :]), (code, place)


def test_luhn_notices_all_transpositions_but_of_0_and_9() -> None:
    for code in examples(is_card):
        for place in range(len(code) - 1):
            first, second = code[place : place + 2]
            if first != second:
                swapped = code[:place] + second + first + code[place + 2 :]
                assert luhn([int(char) for char in swapped]) == ({first, second} == {"0", "9"})


digits = st.lists(st.integers(0, 9), min_size=2, max_size=20)


@pytest.mark.parametrize("is_valid", [verhoeff, luhn, mod_11_10], ids=lambda each: each.__name__)
@given(digits)
def test_exactly_one_check_digit_fits(is_valid: Callable[[list[int]], bool], number: list[int]) -> None:
    assert sum(is_valid([*number, check]) for check in range(10)) == 1


@given(digits)
def test_exactly_one_of_eleven_check_characters_fits(number: list[int]) -> None:
    assert sum(mod_11_2([*number, check]) for check in range(11)) == 1


def test_published_check_digits_of_the_standards() -> None:
    assert mod_11_2([0, 7, 9, 4, 0]) and mod_11_2([0, 7, 9, 10])  # ISO/IEC 7064, MOD 11-2: 0794 -> 0, 079 -> X
    assert mod_11_10([0, 0, 2, 0, 0, 6, 6, 7, 3, 0, 8, 5])
    assert verhoeff([2, 3, 6, 3])


@pytest.mark.parametrize(
    ("address", "valid"),
    [  # the test vectors of BIP 173 and BIP 350
        ("BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4", True),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0", True),
        ("bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqh2y7hd", False),
        ("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5", False),
        ("Bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", False),
    ],
)
def test_segwit_addresses_have_their_own_checksum(address: str, valid: bool) -> None:
    assert bech32(address) is valid


def test_base58_addresses_have_a_checksum() -> None:
    genesis = "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"
    payload = base58check(genesis)
    assert payload is not None and payload.hex() == "0062e907b15cbf27d5425399ebf6f0fb50ebb88f18"
    changed = [genesis[:at] + ("2" if genesis[at] != "2" else "3") + genesis[at + 1 :] for at in range(len(genesis))]
    assert all(base58check(code) is None for code in changed)
    assert base58check(genesis.replace("z", "0")) is None
