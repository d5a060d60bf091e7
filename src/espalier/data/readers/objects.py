"""Objects below `s3://bucket/prefix` as sources. Needs `espalier[aws]`; boto3 finds credentials and endpoint itself.

Lists and reads only. Does not know formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from espalier.core.errors import EspalierError, InvalidInput, MissingExtra, NotFound, PermissionDenied
from espalier.data.readers.remote import Kept, add_fetched, keep, look_up
from espalier.data.readers.source import Found, Selection

AT_ONCE = 8
_ABSENT = {"404", "NoSuchBucket", "NoSuchKey", "NotFound"}
_REFUSED = {"403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}


def list_objects(url: str, selection: Selection, max_bytes: int) -> Found:
    """The objects below a prefix, or the one object of that name; uris are keys without the prefix's folder.

    Raises NotFound for no such bucket, PermissionDenied, MissingExtra without boto3.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise InvalidInput(f"{url!r} names no bucket", hint="write s3://bucket/prefix")
    client = connect_s3()
    found = Found()
    base = prefix_folder(prefix)
    with s3_errors(url):
        items = [(item["Key"].removeprefix(base), item) for item in _iterate(client, bucket, prefix)]
    wanted = [(uri, item) for uri, item in items if uri and not uri.endswith("/") and not _is_hidden(uri)]

    def fetch(uri: str, item: dict[str, Any]) -> Found:
        one = Found()
        add_fetched(one, uri, selection, partial(_fetch, client, bucket, item, selection, max_bytes))
        return one

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for one in pool.map(lambda pair: fetch(*pair), wanted):
            found.sources += one.sources
            found.skipped += one.skipped
    return found


def _is_hidden(uri: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(uri).parts)


def prefix_folder(prefix: str) -> str:
    """The part of a prefix that is a folder: `data/train/` of `data/train/` and of `data/train/part-0`."""
    return prefix[: prefix.rfind("/") + 1]


def _iterate(client: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Objects named by the prefix: itself, or below it as a folder (`data` is not `database/x`)."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            rest = item["Key"].removeprefix(prefix)
            if not rest or not prefix or prefix.endswith("/") or rest.startswith("/"):
                yield item


def _fetch(client: Any, bucket: str, item: dict[str, Any], selection: Selection, max_bytes: int) -> Kept:
    if selection.cache is None:
        raise InvalidInput("objects need a cache folder")
    url, stamp = f"s3://{bucket}/{item['Key']}", f"{item.get('ETag', '')}:{item['Size']}"
    kept = look_up(selection.cache, url)
    if kept and kept.stamp == stamp:
        return kept
    if item["Size"] > max_bytes:
        raise InvalidInput(f"{item['Size']} bytes, more than max_download_bytes ({max_bytes})")
    with s3_errors(url):
        body = client.get_object(Bucket=bucket, Key=item["Key"])["Body"]
        return keep(selection.cache, url, body, stamp, max_bytes)


def connect_s3() -> Any:
    """A boto3 client; raises MissingExtra."""
    try:
        import boto3
    except ModuleNotFoundError as error:
        raise MissingExtra("S3 needs boto3", hint="pip install 'espalier[aws]'") from error
    return boto3.client("s3")


@contextmanager
def s3_errors(url: str) -> Iterator[None]:
    """What boto3 raises within, as NotFound, PermissionDenied or EspalierError about `url`."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            raise NotFound(f"nothing at {url}: {code}", hint="check the bucket's name and the endpoint") from error
        if code in _REFUSED:
            raise PermissionDenied(f"S3 refuses {url}: {code}", hint="check the AWS credentials and policy") from error
        raise EspalierError(f"S3 failed on {url}: {error}") from error
    except NoCredentialsError as error:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise PermissionDenied(f"no AWS credentials for {url}", hint=hint) from error
    except S3UploadFailedError as error:
        raise EspalierError(f"S3 failed on {url}: {error}", hint="check the AWS policy: s3:PutObject") from error
    except BotoCoreError as error:
        raise EspalierError(f"S3 cannot be reached for {url}: {error}", hint="check AWS_ENDPOINT_URL") from error
