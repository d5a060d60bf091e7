"""Bytes by the sha256 of their content, in S3 or what speaks it (set AWS_ENDPOINT_URL). Needs `espalier[aws]`.

S3 shows an object whole or not at all, so a put is one upload; bytes are hashed before they go and after they come.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from espalier.core.errors import EspalierError, InvalidInput, MissingExtra, NotFound, PermissionDenied
from espalier.store.blobs import CHUNK_BYTES, check_digest, hash_file, verify
from espalier.store.disk import new_file, write_all

_ABSENT = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
_REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


class S3Blobs:
    """Blobs as `s3://bucket/prefix/ab/cdef...`; `client` is a boto3 S3 client."""

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    @classmethod
    def from_url(cls, url: str) -> S3Blobs:
        """`s3://bucket/prefix`; credentials, region and endpoint come from where boto3 finds them."""
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        if not bucket:
            raise InvalidInput(f"{url!r} names no bucket", hint="write s3://bucket/prefix")
        try:
            import boto3
        except ModuleNotFoundError as error:
            raise MissingExtra("blobs in S3 need boto3", hint="pip install 'espalier[aws]'") from error
        return cls(boto3.client("s3"), bucket, prefix)

    def put(self, source: IO[bytes]) -> tuple[str, int]:
        """Store a stream; returns (sha256 hex, size_bytes). The stream passes through a temporary file to be hashed."""
        with tempfile.NamedTemporaryFile(prefix="espalier-") as arriving:
            shutil.copyfileobj(source, arriving, CHUNK_BYTES)
            arriving.flush()
            return self.put_file(Path(arriving.name))

    def put_file(self, path: Path) -> tuple[str, int]:
        """Store a file. An object of the right name and size is trusted to be there; reading one checks its bytes."""
        sha256, size_bytes = hash_file(path), path.stat().st_size
        if self._size(sha256) != size_bytes:
            with self._errors(sha256):
                self._client.upload_file(str(path), self._bucket, self._name(sha256))
        return sha256, size_bytes

    def read(self, sha256: str) -> bytes:
        """Raises NotFound, or DigestMismatch when the stored bytes changed."""
        with self._errors(sha256):
            data: bytes = self._client.get_object(Bucket=self._bucket, Key=self._name(sha256))["Body"].read()
        verify(sha256, hashlib.sha256(data).hexdigest(), self._place(sha256))
        return data

    def fetch(self, sha256: str, target: Path) -> None:
        """Download the blob to `target`, read-only; it appears there only once its bytes are checked."""
        with self._errors(sha256):
            body = self._client.get_object(Bucket=self._bucket, Key=self._name(sha256))["Body"]
        hasher = hashlib.sha256()
        with new_file(target, mode=0o444) as descriptor:
            while chunk := body.read(CHUNK_BYTES):
                hasher.update(chunk)
                write_all(descriptor, chunk)
            verify(sha256, hasher.hexdigest(), self._place(sha256))

    def has(self, sha256: str) -> bool:
        return self._size(sha256) is not None

    def _size(self, sha256: str) -> int | None:
        try:
            with self._errors(sha256):
                return int(self._client.head_object(Bucket=self._bucket, Key=self._name(sha256))["ContentLength"])
        except NotFound:
            return None

    def _name(self, sha256: str) -> str:
        digest = check_digest(sha256)
        return "/".join(part for part in (self._prefix, digest[:2], digest[2:]) if part)

    def _place(self, sha256: str) -> str:
        return f"s3://{self._bucket}/{self._name(sha256)}"

    @contextmanager
    def _errors(self, sha256: str) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        place = self._place(sha256)
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _ABSENT:
                raise NotFound(f"no blob at {place}: {code}", hint="run the step that made it again") from error
            if code in _REFUSED:
                raise PermissionDenied(
                    f"S3 refuses {place}: {code}", hint="check the AWS credentials and policy"
                ) from error
            raise EspalierError(f"S3 failed on {place}: {error}") from error
        except BotoCoreError as error:
            raise EspalierError(f"S3 cannot be reached for {place}: {error}", hint="check AWS_ENDPOINT_URL") from error
