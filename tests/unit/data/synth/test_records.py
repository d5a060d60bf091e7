"""Formats, sheets, labels and scenes: what a record says is what the text decided."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest

from espalier.data.synth import labels
from espalier.data.synth.draw import Draw, Weighted
from espalier.data.synth.formats import render, render_xml
from espalier.data.synth.labelsets import LABEL_SETS
from espalier.data.synth.scenes import write_scene
from espalier.data.synth.sheets import SHEETS, fill_sheet

RECORD = [("ticket", "AB-1234"), ("opened", "2024-03-01"), ("fix", "replaced the worn belt"), ("topic", "K3")]


def test_every_xml_record_is_well_formed_and_holds_every_value() -> None:
    for seed in range(300):
        _, text = render_xml(Draw(seed), RECORD)
        prefix = re.match(r"<(\w+):", text)
        bound = re.sub(r"^<([\w:]+)", rf'<\1 xmlns:{prefix[1]}="urn:x"', text) if prefix else text
        root = ElementTree.fromstring(bound)
        told = [value for node in root.iter() for value in (*node.attrib.values(), (node.text or "").strip())]
        assert {value for _, value in RECORD} <= set(told)


def test_json_records_parse_back() -> None:
    read = set()
    for seed in range(300):
        name, text = render(Draw(seed), RECORD)
        if "JSON" in name:
            value = json.loads(text)
            assert value == dict(RECORD) or next(iter(value.values())) == dict(RECORD)
            read.add(name.split()[0])
    assert read == {"JSON", "indented"}


def test_every_format_holds_the_values_in_the_order_asked() -> None:
    for seed in range(300):
        _, text = render(Draw(seed), RECORD)
        places = [text.index(value) for _, value in RECORD]
        assert places == sorted(places)


def test_a_sheet_is_the_same_but_for_its_answers() -> None:
    for sheet in SHEETS:
        first = fill_sheet(sheet, [f"@{i}@" for i in range(len(sheet.tags))])
        second = fill_sheet(sheet, [f"#{i}#" for i in range(len(sheet.tags))])
        assert first.replace("@", "") == second.replace("#", "")
        assert sorted(re.findall(r"@(\d)@", first)) == [str(i) for i in range(len(sheet.tags))]


def test_sheets_have_names_and_tags_of_their_own() -> None:
    assert len({sheet.name for sheet in SHEETS}) == len(SHEETS) == 48
    for sheet in SHEETS:
        assert len(set(sheet.tags)) == len(sheet.fields) + len(sheet.label_sets)
        for label_set, codes in zip(sheet.label_sets, sheet.codes, strict=True):
            assert set(codes) == set(LABEL_SETS[label_set])
            assert len(set(codes.values())) == len(codes)


def test_a_phrasing_belongs_to_one_class_of_its_set() -> None:
    for label_set, classes in LABEL_SETS.items():
        phrasings = [phrasing for ways in classes.values() for phrasing in ways]
        assert len(phrasings) == len(set(phrasings)), label_set


@pytest.mark.parametrize("label_set", labels.SETS)
def test_codes_thrown_for_a_request_are_distinct_and_explained(label_set: str) -> None:
    for seed in range(20):
        naming = labels.name_by_code(Draw(seed), label_set)
        assert len(set(naming.names.values())) == len(LABEL_SETS[label_set])
        for meaning, code in naming.names.items():
            assert meaning in naming.legend
            assert code in naming.legend


def test_a_code_book_learnt_by_heart_never_changes_and_is_never_explained() -> None:
    books: dict[str, set[str]] = {}
    for seed in range(60):
        naming = labels.name_by_heart(Draw(seed), "topic")
        books.setdefault(naming.legend, set()).add(json.dumps(naming.names))
    assert set(books) == {"short code", "number code", "letter code"}
    assert all(len(versions) == 1 for versions in books.values())


def test_a_phrase_said_has_no_open_slot() -> None:
    draw = Draw(1)
    for label_set in labels.SETS:
        for _ in range(100):
            _, said = labels.draw_class(draw, label_set)
            assert "{" not in said


def test_a_scene_tells_every_field_it_claims_to_decide() -> None:
    draw = Draw("scenes")
    for _ in range(500):
        scene = write_scene(draw, fields=(2, 9), classes=(0, 3), filler=(0, 9))
        text = " ".join(scene.text.split())
        assert [value for _, value in scene.fields if value not in text] == []
        assert len({field.key for field, _ in scene.fields}) == len(scene.fields)


def test_weighted_choices_come_as_often_as_their_weights_say() -> None:
    draw, table = Draw(3), Weighted({"often": 3.0, "seldom": 1.0, "never": 0.0})
    drawn = [draw.weighted(table) for _ in range(4000)]
    assert 0.72 < drawn.count("often") / 4000 < 0.78
    assert "never" not in drawn
