from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from espalier.core.errors import InvalidInput, NotFound
from espalier.metrics.metric import Answered
from espalier.metrics.xml import list_fields, parse_xml, xml_fields, xml_valid

SCHEMA = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
<xs:element name="job"><xs:complexType><xs:sequence>
  <xs:element name="cause"><xs:simpleType><xs:restriction base="xs:string">
    <xs:enumeration value="leak"/><xs:enumeration value="noise"/></xs:restriction></xs:simpleType></xs:element>
  <xs:element name="step" type="xs:string" maxOccurs="unbounded"/>
</xs:sequence><xs:attribute name="id" type="xs:positiveInteger" use="required"/></xs:complexType></xs:element>
</xs:schema>"""
GOOD = '<job id="7"><cause>leak</cause><step>look</step><step>mend</step></job>'
BOMB = (
    '<!DOCTYPE job [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + ']><job id="&j;"><cause>&j;</cause></job>'
)


def case(answer: str, reference: str = GOOD) -> Answered:
    return Answered("c1", answer, reference)


@pytest.mark.parametrize(
    ("answer", "value", "why"),
    [
        (GOOD, 1.0, ""),
        (f"\n {GOOD} \n", 1.0, ""),
        (f"<?xml version='1.0'?>{GOOD}", 1.0, ""),
        (GOOD.replace("leak", "rust"), 0.0, "rust"),
        (GOOD.replace('"7"', '"0"'), 0.0, "positiveInteger"),
        (GOOD.replace("<job", "<task").replace("</job", "</task"), 0.0, "task"),
        (GOOD[:-3], 0.0, "not well-formed"),
        (f"Here it is: {GOOD}", 0.0, "not well-formed"),
        (f"```xml\n{GOOD}\n```", 0.0, "not well-formed"),
        ("", 0.0, "not well-formed"),
        (f"<!DOCTYPE job>{GOOD}", 0.0, "document type"),
    ],
)
def test_an_answer_is_valid_only_as_a_whole_document_of_the_schema(answer: str, value: float, why: str) -> None:
    found = xml_valid(SCHEMA).measure(case(answer))
    assert found.value == value
    assert why in found.why


def test_validity_agrees_with_the_schema_processor_called_directly(tmp_path: Path) -> None:
    path = tmp_path / "job.xsd"
    path.write_text(SCHEMA, "utf-8")
    oracle = etree.XMLSchema(etree.parse(str(path)))
    metric = xml_valid(str(path))
    for cause in ("leak", "noise", "Leak", ""):
        for steps in range(3):
            text = f'<job id="1"><cause>{cause}</cause>{"<step>x</step>" * steps}</job>'
            assert metric.measure(case(text)).value == float(oracle.validate(etree.fromstring(text)))


def test_an_answer_reads_no_file_and_expands_no_entity(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2", "utf-8")
    attack = f'<!DOCTYPE job [<!ENTITY x SYSTEM "{secret.as_uri()}">]><job id="1"><cause>&x;</cause></job>'
    for text in (attack, BOMB):
        for metric in (xml_valid(SCHEMA), xml_fields()):
            found = metric.measure(case(text))
            assert found.value == 0.0
            assert "hunter2" not in found.why and len(found.why) < 200


def test_a_file_named_by_an_entity_is_not_even_looked_for() -> None:
    attack = '<!DOCTYPE job [<!ENTITY x SYSTEM "file:///nowhere/at/all">]><job id="1"><cause>&x;</cause></job>'
    assert xml_valid(SCHEMA).measure(case(attack)).why == "has a document type declaration"


def test_a_schema_that_is_missing_broken_or_not_alone_is_refused() -> None:
    with pytest.raises(NotFound, match=r"nowhere\.xsd"):
        xml_valid("nowhere.xsd")
    with pytest.raises(InvalidInput, match="not an XML schema"):
        xml_valid("<job/>")
    with pytest.raises(InvalidInput, match="not an XML schema"):
        xml_valid("<job>")
    start = '<xs:element name="job">'
    with pytest.raises(InvalidInput, match="xs:include"):
        xml_valid(SCHEMA.replace(start, f'<xs:include schemaLocation="http://x.test/y.xsd"/>{start}'))


@pytest.mark.parametrize(
    ("answer", "share", "why"),
    [
        (GOOD, 4 / 4, ""),
        (GOOD.replace("leak", "noise"), 3 / 4, "wrong job/cause"),
        (GOOD.replace('id="7"', 'id="8"'), 3 / 4, "wrong job/@id"),
        (GOOD.replace("<step>mend</step>", ""), 3 / 4, "missing job/step[2]"),
        (GOOD.replace("</job>", "<step>rest</step></job>"), 4 / 5, "extra job/step[3]"),
        (GOOD.replace("leak", " \n leak "), 4 / 4, ""),
        (GOOD.replace("job", "task"), 0.0, "missing job/@id"),
        ("no XML", 0.0, "not well-formed"),
    ],
)
def test_fields_are_compared_by_path_and_an_extra_one_costs_as_much(answer: str, share: float, why: str) -> None:
    found = xml_fields().measure(case(answer))
    assert found.value == pytest.approx(share)
    assert why in found.why


def test_the_breakdown_names_every_field_of_the_reference_once() -> None:
    found = xml_fields().measure(case(GOOD.replace("mend", "weld")))
    assert found.parts == {"job/@id": 1.0, "job/cause": 1.0, "job/step": 0.0}
    assert set(xml_fields().measure(case("<")).parts.values()) == {0.0}
    first_wrong = xml_fields().measure(case(GOOD.replace("look", "lock")))
    assert first_wrong.parts["job/step"] == 0.0


def test_a_namespace_counts_but_does_not_clutter_the_breakdown() -> None:
    good = '<x:job xmlns:x="urn:a/b" id="1"><x:cause>leak</x:cause></x:job>'
    same = xml_fields().measure(case(good.replace("x:", "y:").replace(":x", ":y"), good))
    assert (same.value, same.parts) == (1.0, {"job/@id": 1.0, "job/cause": 1.0})
    other = xml_fields().measure(case(good.replace("urn:a/b", "urn:c"), good))
    assert (other.value, other.parts) == (0.0, {"job/@id": 0.0, "job/cause": 0.0})


def test_a_reference_that_is_no_xml_is_the_datasets_fault() -> None:
    with pytest.raises(InvalidInput, match="reference is not XML") as caught:
        xml_fields().measure(case(GOOD, "plain words"))
    assert caught.value.where == "example c1"


def test_leaves_are_attributes_texts_and_empty_elements() -> None:
    root = parse_xml('<a n="1">loose<b x="2"/><c/><d y="3">t</d><!-- no --><e xmlns="urn:e">u</e></a>')
    assert list_fields(root) == {
        "a/@n": "1", "a/text()": "loose", "a/b/@x": "2", "a/c": "", "a/d/@y": "3", "a/d": "t", "a/{urn:e}e": "u",
    }  # fmt: skip


@given(st.text())
def test_any_text_gets_a_verdict(text: str) -> None:
    assert xml_valid(SCHEMA).measure(case(text)).value in (0.0, 1.0)
    assert 0.0 <= xml_fields().measure(case(text)).value <= 1.0


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.text("xyz ", min_size=1), min_size=1))
def test_a_record_written_back_equals_itself(fields: dict[str, str]) -> None:
    root = etree.Element("r")
    for name, value in fields.items():
        etree.SubElement(root, name).text = value
    text = etree.tostring(root, encoding="unicode")
    assert xml_fields().measure(case(text, text)).value == 1.0
    assert list_fields(parse_xml(text)) == {f"r/{name}": " ".join(value.split()) for name, value in fields.items()}
