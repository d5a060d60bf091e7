"""Fields of answers, whatever an answer is written in."""

from __future__ import annotations

from espalier.data.answers import count_labels, read_fields


def test_fields_of_xml_and_json_answers_are_read_by_path() -> None:
    inner = '<x:unit>Pump</x:unit><x:v cause="A" grade="red"/><x:a><x:b>deep</x:b></x:a>'
    xml = f'<x:r xmlns:x="urn:x" no="1">\n{inner}</x:r>'
    assert read_fields(xml) == {"@no": "1", "unit": "Pump", "v@cause": "A", "v@grade": "red", "a/b": "deep"}
    assert read_fields('{"a": {"b": 1}, "c": "x", "d": null}') == {"a.b": "1", "c": "x"}
    assert read_fields("plain") == read_fields("<broken") == read_fields("{broken") == {}


def test_an_entity_in_an_answer_is_not_expanded() -> None:
    bomb = '<!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><r><x>&b;</x></r>'
    assert "haha" not in str(read_fields(bomb))


def test_only_fields_of_few_values_are_counted_as_labels() -> None:
    answers = [f'<r no="{n}"><v cause="{"AB"[n % 2]}"/></r>' for n in range(40)]
    assert count_labels(answers) == {"v@cause": {"A": 20, "B": 20}}
