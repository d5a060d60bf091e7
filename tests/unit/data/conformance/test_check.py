from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from espalier.core.errors import InvalidInput, NotFound
from espalier.core.types import Example, Message
from espalier.data.conformance.check import check_dataset
from espalier.data.conformance.limits import LIMITS, find_limits
from espalier.data.conformance.report import SHOWN, CheckReport
from espalier.data.formats.format import FORMATS, encode_example
from espalier.store.examples import write_examples


def example(question: str = "q", answer: str = "a", weight: float | None = None) -> Example:
    return Example("ex_1", [Message("user", question), Message("assistant", answer, weight)])


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def rules(report: CheckReport) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in report.findings:
        found.setdefault(finding.rule, []).append(f"{finding.level} {finding.where}")
    return found


@pytest.mark.parametrize("target", LIMITS)
def test_a_plain_dataset_is_accepted_by_every_target_in_its_own_format(tmp_path: Path, target: str) -> None:
    limits = LIMITS[target]
    row = encode_example(example(), limits.formats[0])
    path = write_lines(tmp_path / "train.jsonl", *[row] * 300)
    report = check_dataset(path, target)
    assert report.accepted and not report.findings and report.records == {"train": 300}
    assert all(source.startswith("https://") for source in report.sources) and report.read_on


def test_limits_name_known_formats_and_say_what_was_not_verified() -> None:
    for limits in LIMITS.values():
        assert set(limits.formats) <= set(FORMATS) and limits.sources
    assert "number of records" in find_limits("bedrock:titan").unverified


def test_too_few_and_too_many_records_are_refused(tmp_path: Path) -> None:
    row = encode_example(example(), "bedrock-conversation")
    few = check_dataset(write_lines(tmp_path / "few.jsonl", *[row] * 7), "bedrock:nova")
    assert not few.accepted and few.findings[0].message == "7 records, at least 8 are needed"
    advised = check_dataset(write_lines(tmp_path / "some.jsonl", *[row] * 8), "bedrock:nova")
    assert advised.accepted and rules(advised) == {"few records": ["warning train"]}
    many = check_dataset(write_lines(tmp_path / "many.jsonl", *[row] * 20_001), "bedrock:nova")
    assert rules(many) == {"records": ["error train"]} and "at most 20000" in many.to_text()


def test_every_bad_line_is_named_with_what_to_do(tmp_path: Path) -> None:
    good = encode_example(example(), "bedrock-conversation")
    turn = {"role": "user", "content": [{"text": "q"}]}
    answer = {"role": "assistant", "content": [{"text": "a"}]}
    path = write_lines(
        tmp_path / "train.jsonl",
        *[good] * 100,
        "{broken",
        "",
        {"schemaVersion": "bedrock-conversation-2024", "messages": [{"role": "user", "content": "q"}, answer]},
        {"messages": [answer, turn, answer]},
        {"messages": [turn, turn, answer]},
        {"messages": [turn, {"role": "assistant", "content": [{"text": "Bot: hi [EOS]"}]}]},
        {"messages": [turn]},
    )
    report = check_dataset(path, "bedrock:nova")
    assert rules(report) == {
        "unreadable": ["error train.jsonl:101", "error train.jsonl:102"],
        "format": ["error train.jsonl:103", "error train.jsonl:107"],
        "roles": ["error train.jsonl:104", "error train.jsonl:105"],
        "reserved word": ["error train.jsonl:106"],
    }
    text = report.to_text()
    assert "turn 2 holds Bot:, [EOS], which is reserved" in text and "user and assistant must take turns" in text
    assert "no published figure could be verified: file size, tokens in a record" in text


def test_only_the_first_findings_of_a_rule_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "train.jsonl", *["{broken"] * (SHOWN + 5))
    report = check_dataset(path, "openai:gpt-4o-mini")
    assert report.counts["unreadable"] == SHOWN + 5 and len(rules(report)["unreadable"]) == SHOWN
    assert "... and 5 more of unreadable" in report.to_text()


def test_bytes_no_service_takes_are_found(tmp_path: Path) -> None:
    line = json.dumps(encode_example(example("ü"), "openai-chat"), ensure_ascii=False)
    (tmp_path / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + line.encode() + b"\n" + line.encode("latin-1") + b"\n")
    messages = [finding.message for finding in check_dataset(tmp_path / "train.jsonl", "openai:gpt-4o").findings]
    assert "a byte order mark" in messages and any(message.startswith("not UTF-8") for message in messages)


def test_length_is_guessed_as_a_warning_and_counted_as_an_error(tmp_path: Path) -> None:
    long = example("word " * 30_000)  # 150,000 characters
    path = write_lines(tmp_path / "train.jsonl", *[encode_example(long, "bedrock-claude")] * 32)
    guessed = check_dataset(path, "bedrock:claude-haiku")
    assert guessed.accepted and guessed.counts == {"tokens in a record": 32}
    assert "about 50000 tokens by its 150001 characters" in guessed.findings[0].message
    counted = check_dataset(path, "bedrock:claude-haiku", count_tokens=lambda text: len(text.split()))
    assert not counted.findings
    refused = check_dataset(path, "bedrock:claude-haiku", count_tokens=len)
    assert not refused.accepted and refused.findings[0].message.startswith("150001 tokens, at most 32000")


def test_titan_s_quota_of_characters_is_exact(tmp_path: Path) -> None:
    rows = [encode_example(example("q", "a" * n), "bedrock-completion") for n in (24_575, 24_576)]
    report = check_dataset(write_lines(tmp_path / "train.jsonl", *rows), "bedrock:titan")
    assert rules(report)["characters in a record"] == ["error train.jsonl:2"]


def test_weights_openai_does_not_take_are_found_in_a_dataset_version(tmp_path: Path) -> None:
    weighted = [example(weight=weight) for weight in (None, 0.0, 1.0, 0.5)]
    write_examples(tmp_path / "data" / "train-00000.parquet", [*weighted, *[example()] * 50])
    report = check_dataset(tmp_path, "openai:gpt-4o-mini")
    assert rules(report) == {"weight": ["error data/train-00000.parquet:4 (ex_1)"]}


def test_what_the_target_s_format_cannot_hold_is_found_in_a_dataset_version(tmp_path: Path) -> None:
    system = Example("ex_s", [Message("system", "s"), *example().messages])
    write_examples(tmp_path / "data" / "train-00000.parquet", [system, example()])
    report = check_dataset(tmp_path, "bedrock:titan")
    (finding,) = report.findings
    assert finding.where == "data/train-00000.parquet:1 (ex_s)" and "a system turn" in finding.message


def test_validation_has_bounds_of_its_own_and_test_files_are_left_out(tmp_path: Path) -> None:
    row = encode_example(example(), "bedrock-claude")
    write_lines(tmp_path / "train.jsonl", *[row] * 9_500)
    write_lines(tmp_path / "validation.jsonl", *[row] * 1_001)
    write_lines(tmp_path / "test.jsonl", "{broken")
    report = check_dataset(tmp_path, "bedrock:claude-haiku")
    assert report.records == {"train": 9_500, "validation": 1_001}
    assert rules(report) == {"records": ["error validation", "error train and validation"]}


def test_a_file_name_bedrock_does_not_take_is_found(tmp_path: Path) -> None:
    row = encode_example(example(), "bedrock-conversation")
    report = check_dataset(write_lines(tmp_path / "my train.jsonl", *[row] * 100), "bedrock:nova")
    assert rules(report) == {"file name": ["error my train.jsonl"]}


def test_an_unknown_target_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refusal:
        check_dataset(tmp_path, "bedrock:llama")
    assert refusal.value.hint == "say which: bedrock:llama-3.1, bedrock:llama-3.2"
    with pytest.raises(InvalidInput) as refusal:
        check_dataset(tmp_path, "bedrock:nava")
    assert refusal.value.hint == "did you mean `bedrock:nova`?"
    with pytest.raises(NotFound, match="nothing to check"):
        check_dataset(tmp_path, "bedrock:nova")


def test_personal_data_is_warned_of_by_kind_and_place_and_never_shown(tmp_path: Path) -> None:
    rows = [encode_example(example(question), "openai-chat") for question in ("q", "write to ada@example.org", "q")]
    path = write_lines(tmp_path / "train.jsonl", *rows * 400)
    report = check_dataset(path, "openai:gpt-4o-mini", personal=True)
    assert report.accepted and report.counts == {"personal data": 400}
    assert report.findings[0].where == "train.jsonl:2" and report.findings[0].message == "holds EMAIL"
    assert "ada@" not in report.to_text()
    assert not check_dataset(path, "openai:gpt-4o-mini").findings


def test_a_line_too_long_to_hold_is_found_and_the_next_ones_keep_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espalier.data.conformance.rows.MAX_LINE_BYTES", 1_000)
    row = json.dumps(encode_example(example(), "openai-chat"))
    (tmp_path / "train.jsonl").write_text(f"{row}\n{'x' * 2_500}\n{{broken\n{row}")
    report = check_dataset(tmp_path / "train.jsonl", "openai:gpt-4o")
    assert [(item.where, item.message[:20]) for item in report.findings if item.rule == "unreadable"] == [
        ("train.jsonl:2", "a line of 2501 bytes"),
        ("train.jsonl:3", "not JSON: Expecting "),
    ]
    assert report.records == {"train": 4}
