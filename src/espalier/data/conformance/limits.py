"""What fine-tuning services publish about the datasets they take, as data, each figure with where it was read.

Figures were read on 2026-11-21 in stored copies of the pages named in `sources`; for quotas that AWS states in the
console only, in the validators AWS publishes beside its documentation. What could not be verified is left out and named
in `unverified`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from espalier.core.errors import InvalidInput, did_you_mean

READ_ON = "2026-11-21"
_MB, _GB = 10**6, 10**9
_BEDROCK_TEXT = "https://docs.aws.amazon.com/bedrock/latest/userguide/preparing-text-data.html"
_BEDROCK_REQUIREMENTS = (
    "https://docs.aws.amazon.com/bedrock/latest/userguide/model-training-validation-requirements.html"
)
_SAMPLES = "https://github.com/aws-samples/amazon-bedrock-samples/blob/main"
_NOVA_GUIDE = "https://docs.aws.amazon.com/nova/latest/userguide/fine-tune-prepare-data-understanding.html"
_NOVA_VALIDATOR = (
    "https://github.com/aws-samples/amazon-nova-samples/blob/main/customization/bedrock-finetuning/understanding/"
    "dataset_validation/nova_ft_dataset_validator.py"
)
_LLAMA_VALIDATOR = f"{_SAMPLES}/custom-models/bedrock-fine-tuning/meta-llama/dataset_validation/README.md"
_HAIKU_VALIDATOR = f"{_SAMPLES}/bedrock-fine-tuning/claude-haiku/DataValidation/data_validation.py"
_OPENAI_GUIDE = "https://developers.openai.com/api/docs/guides/supervised-fine-tuning"
_OPENAI_API = "https://github.com/openai/openai-openapi (POST /files)"
_AZURE_MODELS = (
    "https://github.com/MicrosoftDocs/azure-ai-docs (articles/ai-foundry/openai/includes/fine-tune-models.md)"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one service takes. None = no such limit is published, or it could not be verified."""

    target: str
    title: str
    formats: tuple[str, ...]  # of `data.formats`
    sources: tuple[str, ...]
    unverified: tuple[str, ...] = ()
    train_records: tuple[int, int | None] = (1, None)  # at least, at most
    validation_records: tuple[int, int | None] = (0, None)
    total_records: int | None = None
    train_bytes: int | None = None
    validation_bytes: int | None = None
    record_tokens: int | None = None  # question and answer together
    record_chars: int | None = None
    chars_per_token: float = 4.0  # to guess by, where nobody counts tokens
    advised_records: int = 0
    alternating: bool = False  # user and assistant take turns, the user first
    reserved: tuple[str, ...] = ()  # words that may stand nowhere in a turn
    weights: tuple[float, ...] | None = None
    file_name: str = ""  # pattern a file's name must match


_NOVA = Limits(
    target="bedrock:nova",
    title="Amazon Nova Micro, Lite and Pro on Bedrock",
    formats=("bedrock-conversation",),
    sources=(_NOVA_GUIDE, _NOVA_VALIDATOR),
    unverified=("file size", "tokens in a record"),
    train_records=(8, 20_000),
    advised_records=100,
    alternating=True,
    reserved=(
        *("System:", "SYSTEM:", "User:", "USER:", "Bot:", "BOT:", "Assistant:", "ASSISTANT:", "Thought:"),
        *("[EOS]", "<image>", "<video>", "<unk>"),
    ),
    file_name=r"[\w\-/.]+\.jsonl",
)
_ALL = (
    _NOVA,
    Limits(
        target="bedrock:nova-2-lite",
        title="Amazon Nova 2 Lite on Bedrock",
        formats=_NOVA.formats,
        sources=_NOVA.sources,
        unverified=_NOVA.unverified,
        train_records=(200, 20_000),
        alternating=True,
        reserved=_NOVA.reserved,
        file_name=_NOVA.file_name,
    ),
    Limits(
        target="bedrock:titan",
        title="Amazon Titan Text Lite, Express and Premier on Bedrock",
        formats=("bedrock-completion",),
        sources=(_BEDROCK_REQUIREMENTS, _BEDROCK_TEXT),
        unverified=("number of records",),
        train_bytes=_GB,
        validation_bytes=100 * _MB,
        record_tokens=4096,
        record_chars=4096 * 6,
        chars_per_token=6.0,
        file_name=r".+\.jsonl",
    ),
    Limits(
        target="bedrock:llama-3.1",
        title="Meta Llama 3.1 8B and 70B Instruct on Bedrock",
        formats=("bedrock-completion",),
        sources=(_LLAMA_VALIDATOR, _BEDROCK_TEXT),
        unverified=("file size", "fewest records"),
        train_records=(1, 10_000),
        validation_records=(0, 1_000),
        record_tokens=16_000,
        chars_per_token=6.0,
        file_name=r".+\.jsonl",
    ),
    Limits(
        target="bedrock:llama-3.2",
        title="Meta Llama 3.2 1B, 3B, 11B and 90B Instruct on Bedrock",
        formats=("bedrock-conversation",),
        sources=(_LLAMA_VALIDATOR, _BEDROCK_TEXT),
        unverified=("file size", "fewest records", "whether roles must alternate"),
        train_records=(1, 10_000),
        validation_records=(0, 1_000),
        record_tokens=16_000,
        chars_per_token=6.0,
        file_name=r".+\.jsonl",
    ),
    Limits(
        target="bedrock:claude-haiku",
        title="Anthropic Claude 3 Haiku on Bedrock",
        formats=("bedrock-claude",),
        sources=(_HAIKU_VALIDATOR,),
        train_records=(32, 10_000),
        validation_records=(32, 1_000),
        total_records=10_000,
        train_bytes=10 * 1024**3,
        validation_bytes=1024**3,
        record_tokens=32_000,
        chars_per_token=3.0,
        alternating=True,
    ),
    *(
        Limits(
            target=f"openai:{model}",
            title=f"OpenAI {model} ({date})",
            formats=("openai-chat", "openai-preference"),
            sources=(_OPENAI_GUIDE, _OPENAI_API, _AZURE_MODELS),
            unverified=(
                "most records",
                "tokens in a record at OpenAI itself: the figure is Azure's for the same model",
            ),
            train_records=(10, None),
            train_bytes=512 * _MB,
            validation_bytes=512 * _MB,
            record_tokens=65_536,
            advised_records=50,
            weights=(0.0, 1.0),
            file_name=r".+\.jsonl",
        )
        for model, date in (("gpt-4o-mini", "2024-07-18"), ("gpt-4o", "2024-08-06"))
    ),
)
LIMITS: Mapping[str, Limits] = {limits.target: limits for limits in _ALL}


def find_limits(target: str) -> Limits:
    """The limits of a target such as "bedrock:nova"; raises InvalidInput with the nearest known one."""
    if target in LIMITS:
        return LIMITS[target]
    begin = [name for name in LIMITS if name.startswith(target)] if target else []
    hint = f"say which: {', '.join(begin)}" if begin else did_you_mean(target, LIMITS)
    raise InvalidInput(f"no limits are known for {target!r}", hint=hint)
