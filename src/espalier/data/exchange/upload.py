"""An exported folder as objects below `s3://bucket/prefix`. Needs `espalier[aws]`; boto3 finds the credentials itself.

Knows folders and objects, not what the files hold.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from espalier.core.errors import Conflict, InvalidInput
from espalier.data.exchange.report import ExportReport
from espalier.data.readers.objects import connect_s3, s3_errors

SCHEME = "s3://"


def export_to_bucket(url: str, scratch: Path, export: Callable[[Path], ExportReport]) -> ExportReport:
    """Have `export` write a folder below `scratch`, and upload it to `url`, which must hold nothing yet.

    Nothing is uploaded where the export fails; an upload that fails leaves the objects before it. Raises Conflict where
    something lies below `url`, NotFound for no such bucket, PermissionDenied, MissingExtra, and what `export` raises.
    """
    bucket, _, prefix = url.removeprefix(SCHEME).strip("/").partition("/")
    if not bucket:
        raise InvalidInput(f"{url!r} names no bucket", hint="write s3://bucket/prefix")
    base = f"{prefix}/" if prefix else ""
    client = connect_s3()
    with s3_errors(url):
        if client.list_objects_v2(Bucket=bucket, Prefix=base, MaxKeys=1).get("KeyCount", 0):
            raise Conflict(f"{url} is not empty", hint="name a new prefix: nothing is overwritten")
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="export-") as folder:
        report = export(Path(folder))
        for name in report.files:
            with s3_errors(f"{SCHEME}{bucket}/{base}{name}"):
                client.upload_file(str(Path(folder, name)), bucket, base + name)
    return report.model_copy(update={"folder": url})
