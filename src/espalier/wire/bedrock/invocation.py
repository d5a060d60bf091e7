"""Records of Bedrock's batch inference: `{recordId, modelInput}` in, `{recordId, modelInput, modelOutput | error}` out.

https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference-data.html and batch-inference-results.html. What
`modelInput` holds goes by the job's invocation type:

    InvokeModel   the body Bedrock documents for OpenAI models: a chat completion's, `model` optional, `stream` false;
                  `modelOutput` is a chat completion
    Converse      the body of Converse; `modelOutput` is its response
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Literal

from espalier.core.errors import EspalierError, InvalidInput
from espalier.core.types import Completion
from espalier.wire.batchline import Asked
from espalier.wire.bedrock.converse import decode_converse, encode_converse
from espalier.wire.openai.batch import decode_body
from espalier.wire.openai.response import encode_completion

Invocation = Literal["InvokeModel", "Converse"]


def decode_record(raw: bytes, number: int, model: str, invocation: Invocation) -> Asked:
    """One record; `number` (from 0) names it where it has no recordId. What is wrong is told in its `fault`."""
    name = f"R{number + 1:010d}"  # eleven characters, like Bedrock's own
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return Asked(name, fault=InvalidInput("the record is not JSON"), fault_code="invalid_json_line")
    if not isinstance(fields, dict) or not isinstance(fields.get("modelInput"), dict):
        wrong = InvalidInput("the record has no modelInput", hint='write {"recordId": "...", "modelInput": {...}}')
        return Asked(name, fault=wrong, fault_code="missing_required_parameter")
    body = fields["modelInput"]
    if isinstance(fields.get("recordId"), str):
        name = fields["recordId"] or name
    if invocation == "Converse":
        try:
            return Asked(name, decode_converse(body, model), body=body)
        except EspalierError as error:
            return Asked(name, fault=error, body=body)
    if body.get("model", model) != model:
        wrong = InvalidInput(f"model is {body['model']!r:.100}, the job's is {model}", where="model")
        return Asked(name, fault=wrong, body=body)
    return replace(decode_body(name, {**body, "model": model}), body=body)


def encode_answer(asked: Asked, completion: Completion, created_s: int, invocation: Invocation) -> bytes:
    """The output record of an answered request, without a line end."""
    said = encode_converse(completion) if invocation == "Converse" else encode_completion(completion, created_s)
    return json.dumps({"recordId": asked.name, "modelInput": asked.body, "modelOutput": said}).encode()


def encode_failure(asked: Asked, status: int, message: str) -> bytes:
    """The output record of one that has no answer."""
    fault = {"errorCode": status, "errorMessage": message}
    return json.dumps({"recordId": asked.name, "modelInput": asked.body, "error": fault}).encode()


def read_fault(raw: bytes) -> str:
    """What an output record without an answer says of why."""
    return str(json.loads(raw)["error"]["errorMessage"])


def encode_manifest(
    total: int, success: int, errors: int, input_tokens: int, output_tokens: int, *, processed: int
) -> dict[str, int]:
    """`manifest.json.out`: the job in six figures."""
    return {
        "totalRecordCount": total,
        "processedRecordCount": processed,
        "successRecordCount": success,
        "errorRecordCount": errors,
        "inputTokenCount": input_tokens,
        "outputTokenCount": output_tokens,
    }
