from __future__ import annotations

from pathlib import Path

import pytest

from espalier.data.readers.licence import find_spdx, read_licence


def test_a_note_of_the_sources_names_licence_and_origin(tmp_path: Path) -> None:
    (tmp_path / "SOURCE.md").write_text(
        "# x\n- source: https://example.org/x\n- commit: abc\n- licence: CC-BY-SA-4.0 (README of it)\n"
    )
    found = read_licence(tmp_path)
    assert found is not None
    assert (found.spdx, found.statement) == ("CC-BY-SA-4.0", "CC-BY-SA-4.0 (README of it)")
    assert found.attribution == "https://example.org/x@abc" and found.files == ("SOURCE.md",)


def test_the_licence_s_text_gives_name_and_copyright(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_text("MIT License\n\nCopyright (c) 2021 Somebody\n\nPermission is hereby granted ...")
    found = read_licence(tmp_path)
    assert found is not None and (found.spdx, found.attribution) == ("MIT", "Copyright (c) 2021 Somebody")
    (tmp_path / "SOURCE.md").write_text("licence: Apache-2.0\nsource: https://example.org/x\n")
    found = read_licence(tmp_path)
    assert found is not None and found.spdx == "Apache-2.0" and found.files == ("SOURCE.md", "LICENSE")
    assert found.attribution == "Copyright (c) 2021 Somebody; https://example.org/x"


def test_a_dataset_card_s_yaml_is_read(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: cc-by-4.0\n---\n# license: nothing\n")
    found = read_licence(tmp_path)
    assert found is not None and found.spdx == "CC-BY-4.0"


def test_what_has_no_name_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "SOURCE.md").write_text("- licence: public domain text\n")
    found = read_licence(tmp_path)
    assert found is not None and (found.spdx, found.statement) == ("", "public domain text")


def test_a_folder_that_says_nothing_has_none(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Read me\nsource: here\n")
    assert read_licence(tmp_path) is None


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("MIT License")
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "LICENSE").symlink_to(tmp_path / "outside")
    assert read_licence(tmp_path / "inside") is None


@pytest.mark.parametrize(
    ("statement", "spdx"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT/Apache-2.0", "MIT AND Apache-2.0"),
        ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
        ("public domain / CC0-1.0 per document", "CC0-1.0"),
        ("permitted", ""),
        ("SUMMIT-MIT-like", ""),
        ("GPL-3.0-or-later", "GPL-3.0-or-later"),
    ],
)
def test_identifiers_are_found_in_sentences(statement: str, spdx: str) -> None:
    assert find_spdx(statement) == spdx
