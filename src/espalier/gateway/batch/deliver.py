"""The results of a Bedrock-shaped batch, copied to where it was told to put them: a folder, or a prefix in S3.

    <destination>/<batch>/<input's name>.out       every record, in the input's order
    <destination>/<batch>/manifest.json.out        six figures

as Bedrock lays them out. Written before the batch counts as ended, and the same however often it is written.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from espalier.core.errors import EspalierError, MissingExtra
from espalier.core.ports import Blobs
from espalier.gateway.batch.publish import Results
from espalier.gateway.batch.records import Batch, BatchEnd, Progress
from espalier.store.disk import new_file, storage_errors, write_all, write_file
from espalier.wire.bedrock.invocation import encode_manifest

_PIECE_BYTES = 1 << 20


def deliver(blobs: Blobs, batch: Batch, results: Results, progress: Progress) -> None:
    """Copy results and manifest. Raises StorageFull, PermissionDenied, MissingExtra, EspalierError (no such place)."""
    manifest = json.dumps(manifest_of(progress)).encode()
    if batch.destination.startswith("s3://"):
        _to_s3(blobs, batch, results, manifest)
        return
    folder = Path(batch.destination) / batch.id
    try:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if results.output:
                copy_blob(blobs, results.output, folder / f"{batch.name}.out")
            write_file(folder / "manifest.json.out", manifest)
    except OSError as error:
        wrong = f"cannot write to {batch.destination}: {error.strerror or error}"
        raise EspalierError(wrong, hint="fetch the results from here, and name another place next time") from error


def copy_blob(blobs: Blobs, sha256: str, target: Path) -> None:
    """A blob's bytes at `target` as a file of its own: what its reader does to it, the store does not feel."""
    with tempfile.TemporaryDirectory(prefix=".espalier-", dir=target.parent) as folder, new_file(target) as descriptor:
        blobs.fetch(sha256, Path(folder) / "blob")
        with (Path(folder) / "blob").open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                write_all(descriptor, piece)


def manifest_of(counts: Progress | BatchEnd) -> dict[str, int]:
    """The manifest of a batch as it stands."""
    return encode_manifest(
        counts.total,
        counts.completed,
        counts.failed,
        counts.prompt_tokens,
        counts.completion_tokens,
        processed=counts.completed + counts.failed,
    )


def _to_s3(blobs: Blobs, batch: Batch, results: Results, manifest: bytes) -> None:
    client, bucket, prefix = open_s3(batch.destination)
    place = "/".join(part for part in (prefix.strip("/"), batch.id) if part)
    try:
        if results.output:
            with tempfile.TemporaryDirectory(prefix="espalier-") as folder:
                blobs.fetch(results.output, Path(folder) / "output")
                client.upload_file(str(Path(folder) / "output"), bucket, f"{place}/{batch.name}.out")
        client.put_object(Bucket=bucket, Key=f"{place}/manifest.json.out", Body=manifest)
    except OSError:
        raise
    except Exception as error:
        raise EspalierError(f"S3 refuses {batch.destination}: {error}", hint="check credentials and bucket") from error


def open_s3(uri: str) -> tuple[Any, str, str]:
    """(boto3 client, bucket, key) of an s3:// address; credentials come from where boto3 finds them."""
    try:
        import boto3
    except ModuleNotFoundError as error:
        raise MissingExtra("s3:// needs boto3", hint="pip install 'espalier[aws]'") from error
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return boto3.client("s3"), bucket, key
