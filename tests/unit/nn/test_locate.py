from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espalier.core.errors import InvalidInput, NotFound, UnsupportedModel
from espalier.nn.locate import count_parameters, digest_base, locate_base


def test_a_path_is_found_and_its_parameters_counted(tiny_folder: Path) -> None:
    assert locate_base(f"path:{tiny_folder}") == tiny_folder
    assert 50_000 < count_parameters(tiny_folder) < 100_000


@pytest.mark.parametrize("spec", ["seedling", "builtin:", "s3:bucket/model", "hf:just-a-name", "hf:a/b/c"])
def test_what_is_no_model_name_is_refused_with_the_three_ways_to_write_one(spec: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        locate_base(spec)
    assert "hf:OWNER/NAME" in caught.value.hint


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no folder .*absent"):
        locate_base(f"path:{tmp_path / 'absent'}")


def test_an_unknown_builtin_names_the_file_that_is_not_there() -> None:
    with pytest.raises(NotFound, match=r"seedlnig.*config\.json"):
        locate_base("builtin:seedlnig")


def test_a_folder_with_pickled_weights_only_is_unsupported(tiny_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedModel, match=r"pytorch_model\.bin"):
        locate_base(f"path:{folder}")


def test_a_hub_name_that_is_not_in_the_cache_is_refused_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotFound) as caught:
        locate_base("hf:owner/name", fetch=False)
    assert str(tmp_path / "models--owner--name") in caught.value.message
    assert "hf download owner/name" in caught.value.hint


def test_a_snapshot_in_the_hub_cache_is_used_as_it_is(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    cache = tmp_path / "models--owner--name"
    shutil.copytree(tiny_folder, cache / "snapshots" / "abc123")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("abc123")
    assert locate_base("hf:owner/name") == cache / "snapshots" / "abc123"
    assert locate_base("hf:owner/name@abc123") == cache / "snapshots" / "abc123"


def test_the_digest_follows_weights_and_config_and_nothing_else(tiny_folder: Path, tmp_path: Path) -> None:
    first = digest_base(tiny_folder)
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    (folder / "README.md").write_text("a card")
    assert digest_base(folder) == first
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert digest_base(folder) != first


def test_looking_for_a_base_imports_no_torch() -> None:
    code = "import sys; import espalier.nn.locate, espalier.nn.lora; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
