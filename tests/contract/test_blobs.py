"""The local folder and S3 keep the same promises about bytes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from espalier.core.errors import EspalierError, InvalidInput, NotFound
from espalier.store.blobs import LocalBlobs, open_blobs
from espalier.store.s3 import S3Blobs
from espalier.testing.contracts.blobs import BlobsContract, Damage


class TestLocalBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path_factory: pytest.TempPathFactory) -> LocalBlobs:
        return LocalBlobs(tmp_path_factory.mktemp("blobs"))

    @pytest.fixture
    def damage(self, blobs: LocalBlobs) -> Damage:
        def damage(sha256: str) -> None:
            path = blobs.path(sha256)
            path.chmod(0o644)
            data = bytearray(path.read_bytes())
            data[0] ^= 1
            path.write_bytes(data)

        return damage

    def test_putting_the_bytes_again_heals_a_damaged_blob(self, blobs: LocalBlobs, damage: Damage) -> None:
        sha256, _ = blobs.put(io.BytesIO(b"data"))
        damage(sha256)
        blobs.put(io.BytesIO(b"data"))
        assert blobs.read(sha256) == b"data"


class TestS3Blobs(BlobsContract):
    @pytest.fixture
    def blobs(self, s3_url: str) -> S3Blobs:
        opened = open_blobs(s3_url)
        assert isinstance(opened, S3Blobs)
        return opened

    @pytest.fixture
    def damage(self, blobs: S3Blobs, s3_url: str) -> Damage:
        import boto3

        bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")

        def damage(sha256: str) -> None:
            boto3.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{sha256[:2]}/{sha256[2:]}", Body=b"other")

        return damage

    def test_a_bucket_that_is_not_there_is_not_found(self, s3_url: str) -> None:
        with pytest.raises(NotFound):
            open_blobs("s3://no-such-bucket-here/x").read("0" * 64)

    def test_an_endpoint_that_does_not_answer_is_said_in_our_words(
        self, s3_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(EspalierError, match="cannot be reached"):
            open_blobs(s3_url).has("0" * 64)


def test_a_blob_store_opens_by_its_url(tmp_path: Path) -> None:
    opened = open_blobs(f"file://{tmp_path}")
    assert isinstance(opened, LocalBlobs)
    assert opened.root == tmp_path


@pytest.mark.parametrize("url", ["/a/path", "s3://"])
def test_what_is_no_url_of_a_blob_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        open_blobs(url)


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(NotFound) as caught:
        open_blobs("s4://bucket")
    assert "s3" in caught.value.hint
