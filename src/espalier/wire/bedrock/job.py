"""Bedrock's model invocation jobs: what creates one, and what it tells of itself.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_CreateModelInvocationJob.html and its neighbours. Knows no
bucket and no queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from espalier.core.errors import InvalidInput
from espalier.core.faults import list_faults
from espalier.core.ids import digest_of
from espalier.wire.bedrock.invocation import Invocation
from espalier.wire.jsonbody import read_json

_ARN = "arn:aws:bedrock:local:000000000000:model-invocation-job/"
_TOKEN = r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*$"  # AWS' own
_HOURS_FIRST, _HOURS_LAST = 24, 168


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Input(_Wire):
    s3Uri: Annotated[str, Field(pattern=r"^s3://[^/\x00]+/[^\x00\n]+$", max_length=1024)]  # noqa: N815 - their name
    s3InputFormat: Literal["JSONL"] = "JSONL"  # noqa: N815
    s3BucketOwner: str = ""  # noqa: N815


class _Output(_Wire):
    s3Uri: Annotated[str, Field(pattern=r"^s3://[^/\x00]+(/[^\x00\n]*)?$", max_length=1024)]  # noqa: N815
    s3EncryptionKeyId: str = ""  # noqa: N815
    s3BucketOwner: str = ""  # noqa: N815


class _InputConfig(_Wire):
    s3InputDataConfig: _Input  # noqa: N815


class _OutputConfig(_Wire):
    s3OutputDataConfig: _Output  # noqa: N815


class CreateJob(_Wire):
    """The body of CreateModelInvocationJob. Role and tags are kept and mean nothing here."""

    jobName: Annotated[str, Field(min_length=1, max_length=63)]  # noqa: N815
    roleArn: Annotated[str, Field(max_length=2048)]  # noqa: N815
    modelId: Annotated[str, Field(min_length=1, max_length=256)]  # noqa: N815
    inputDataConfig: _InputConfig  # noqa: N815
    outputDataConfig: _OutputConfig  # noqa: N815
    clientRequestToken: Annotated[str, Field(max_length=256, pattern=_TOKEN)] = ""  # noqa: N815
    timeoutDurationInHours: Annotated[int, Field(ge=_HOURS_FIRST, le=_HOURS_LAST)] = _HOURS_FIRST  # noqa: N815
    modelInvocationType: Invocation = "InvokeModel"  # noqa: N815
    tags: list[dict[str, str]] = []

    @property
    def source(self) -> str:
        return self.inputDataConfig.s3InputDataConfig.s3Uri

    @property
    def destination(self) -> str:
        return self.outputDataConfig.s3OutputDataConfig.s3Uri

    @property
    def digest(self) -> str:
        """Of all that is asked, by which the same request made again is known; but for the token it is made under."""
        return digest_of(self.model_dump(mode="json", exclude={"clientRequestToken"}))


def decode_create(body: bytes) -> CreateJob:
    """Raises InvalidInput naming the member at fault."""
    fields = read_json(body)
    try:
        return CreateJob.model_validate(fields)
    except ValidationError as error:
        fault = list_faults(error, fields, CreateJob)[0]
        where = ".".join(map(str, fault.place))
        raise InvalidInput(fault.tell("the body")[:300], where=where[:64], hint=fault.hint[:300]) from None


@dataclass(frozen=True, slots=True)
class JobFields:
    """What a job tells. Times are in milliseconds, 0 where it has not happened."""

    id: str
    name: str
    model: str
    role: str
    token: str
    status: str  # ours
    source: str
    destination: str
    invocation: Invocation
    hours: int
    submitted_ms: int
    changed_ms: int
    ended_ms: int
    expires_ms: int
    message: str = ""
    total: int = 0
    completed: int = 0
    failed: int = 0


_STATUSES = {
    "validating": "Validating", "in_progress": "InProgress", "finalizing": "InProgress", "cancelling": "Stopping",
    "completed": "Completed", "failed": "Failed", "cancelled": "Stopped", "expired": "Expired",
}  # fmt: skip


def encode_job(job: JobFields) -> dict[str, Any]:
    """GetModelInvocationJob's answer, which is a summary's too."""
    status = _STATUSES[job.status]
    told = {
        "jobArn": arn_of(job.id),
        "jobName": job.name,
        "modelId": job.model,
        "clientRequestToken": job.token or None,
        "roleArn": job.role,
        "status": "PartiallyCompleted" if status == "Expired" and job.completed else status,
        "message": job.message or None,
        "submitTime": _time(job.submitted_ms),
        "lastModifiedTime": _time(job.changed_ms),
        "endTime": _time(job.ended_ms),
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": job.source, "s3InputFormat": "JSONL"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": job.destination}},
        "timeoutDurationInHours": job.hours,
        "jobExpirationTime": _time(job.expires_ms),
        "modelInvocationType": job.invocation,
        "totalRecordCount": job.total,
        "processedRecordCount": job.completed + job.failed,
        "successRecordCount": job.completed,
        "errorRecordCount": job.failed,
    }
    return {name: value for name, value in told.items() if value is not None}


def arn_of(id: str) -> str:
    """A job's ARN; account and region are nobody's."""
    return _ARN + id.removeprefix("batch_")


def id_of(identifier: str) -> str:
    """The inverse, of an ARN or of its last part."""
    return "batch_" + identifier.rpartition("/")[2].removeprefix("batch_")


def _time(ms: int) -> str | None:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ms else None
