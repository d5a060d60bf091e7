"""Load a base model: transformers' modelling code, our rules about files, dtype and digests.

Safetensors only, no code from the model's folder, nothing fetched here (see `locate`). Knows no adapter and no stage.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from espalier.core.errors import InvalidInput, UnsupportedModel
from espalier.nn.locate import count_parameters, digest_base, locate_base, name_stored_dtype, read_quantised
from espalier.tokens.tokenizer import ChatTokenizer, load_tokenizer

Dtype = Literal["auto", "float32", "bfloat16", "stored"]
Quantise = Literal["none", "nf4", "int8"]

# Below this a base computes in float32 by default: it is fast enough, and greedy answers then do not depend on which
# requests happen to share a batch, nor on whose code computes them. See docs/decisions/serving-dtype.md for the cost.
EXACT_BELOW_PARAMETERS = 50_000_000

# transformers builds a model under settings of the whole process (default dtype, no initialisation): two at once spoil
# each other, up to weights that are said to be missing.
_BUILDING = threading.Lock()


@dataclass(frozen=True, slots=True)
class LoadedBase:
    """A base in memory, its tokenizer and chat template, and the digests that adapters are checked against."""

    spec: str  # as the user named it
    path: Path
    model: PreTrainedModel
    tokenizer: ChatTokenizer
    base_digest: str
    eos_ids: frozenset[int]  # any of them ends an answer
    context_tokens: int  # prompt and answer together
    quantised: str = "none"  # how its linear layers are kept: nf4, int8, or as they are

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    @property
    def tokenizer_digest(self) -> str:
        return self.tokenizer.digest

    @property
    def template_digest(self) -> str:
        return self.tokenizer.template_digest

    @property
    def special_tokens(self) -> dict[str, str]:
        return dict(self.tokenizer.special_tokens)


def load_base(
    spec: str,
    *,
    dtype: Dtype = "auto",
    threads: int = 0,
    fetch: bool = True,
    quantise: Quantise = "none",
    device: str = "",
) -> LoadedBase:
    """Load `spec` (see `locate_base`) for training or serving, in evaluation mode.

    `threads` > 0 sets torch's CPU threads for the whole process. `quantise` keeps the linear layers in 4 or 8 bits
    (nn/quantized.py), to train adapters on; each goes to the device in those. A base that is stored quantised
    (nn/quantisedbase.py) is held so. `device` is where the weights go: by default the GPU where there is one.
    Raises what `locate_base` raises, UnsupportedModel for an architecture transformers does not know or that needs
    code of its own, InvalidInput for weights that do not fit.
    """
    folder = locate_base(spec, fetch=fetch)
    if threads > 0:
        torch.set_num_threads(threads)
    fastest = "cuda" if torch.cuda.is_available() else "cpu"  # where it will be computed, wherever it waits
    device = device or fastest
    chosen = choose_dtype(dtype, count_parameters(folder), fastest, stored=folder)
    stored = read_quantised(folder)
    if stored != "none":
        if quantise not in ("none", stored):
            raise InvalidInput(f"{spec} is stored in {stored} already", hint="leave `quantise` out")
        model = _load_stored_quantised(folder, spec, chosen, stored).to(device).eval()
    elif quantise == "none":
        model = _load_model(folder, spec, chosen).to(device).eval()
    else:
        model = _load_quantised(folder, spec, chosen, quantise, torch.device(device)).eval()
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(model, tokenizer, spec)
    return LoadedBase(
        spec=spec,
        path=folder,
        model=model,
        tokenizer=tokenizer,
        base_digest=digest_base(folder),
        eos_ids=_end_ids(model, tokenizer),
        context_tokens=int(getattr(model.config, "max_position_embeddings", 0) or 2048),
        quantised=quantise if stored == "none" else stored,
    )


def outline_base(spec: str) -> LoadedBase:
    """`spec` without its weights: layers and shapes on torch's meta device, digests and tokenizer as `load_base` gives.

    Enough to check an adapter against, in a second for a base of any size; it computes nothing. Nothing is fetched.
    Raises what `load_base` raises, but for weights that do not fit.
    """
    folder = locate_base(spec, fetch=False)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with _BUILDING, torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, OSError, RuntimeError, ImportError) as error:
        raise _refusal(spec, folder, error) from error
    tokenizer = load_tokenizer(folder)
    _check_vocabulary(model, tokenizer, spec)
    return LoadedBase(
        spec=spec,
        path=folder,
        model=model.eval(),
        tokenizer=tokenizer,
        base_digest=digest_base(folder),
        eos_ids=_end_ids(model, tokenizer),
        context_tokens=int(getattr(model.config, "max_position_embeddings", 0) or 2048),
    )


def choose_dtype(wanted: Dtype, parameters: int, device: str = "cpu", stored: Path | None = None) -> torch.dtype:
    """The dtype to compute in. `auto`: float32 for small bases, bfloat16 for others where the machine has it.

    `stored`: that of the files in the folder of that name, to write them again.
    """
    if wanted == "stored":
        return getattr(torch, name_stored_dtype(stored)) if stored else torch.float32
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]
    if parameters < EXACT_BELOW_PARAMETERS:
        return torch.float32
    native = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _load_model(folder: Path, spec: str, dtype: torch.dtype) -> PreTrainedModel:
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with _BUILDING:
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (ValueError, KeyError, OSError, RuntimeError, ImportError) as error:
        raise _refusal(spec, folder, error) from error
    # transformers fills what the file lacks with random numbers and only logs it; such a model must not be served.
    if report["missing_keys"] or report["mismatched_keys"]:
        lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
        raise InvalidInput(
            f"{spec}: its weights lack {len(lacking)} tensors of the architecture, first {lacking[0]}",
            where=str(folder),
            hint="the download or conversion is incomplete",
        )
    return model


def _load_quantised(
    folder: Path, spec: str, dtype: torch.dtype, scheme: Literal["nf4", "int8"], device: torch.device
) -> PreTrainedModel:
    from espalier.nn.quantized import quantise_model
    from espalier.nn.streaming import load_quantised

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with _BUILDING:
            model = load_quantised(folder, config, dtype, scheme, device)
    except (ValueError, KeyError, OSError, RuntimeError, ImportError) as error:
        raise _refusal(spec, folder, error) from error
    if model is None:
        model = _load_model(folder, spec, dtype)
        quantise_model(model, scheme, device=device)
    return model.to(device)


def _load_stored_quantised(folder: Path, spec: str, dtype: torch.dtype, scheme: str) -> PreTrainedModel:
    from espalier.nn.quantisedweights import load_stored_quantised

    if scheme not in ("nf4", "int8"):
        raise UnsupportedModel(f"{spec} is stored in {scheme}", hint="nf4 and int8 are understood")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with _BUILDING:
            return load_stored_quantised(folder, config, dtype, "nf4" if scheme == "nf4" else "int8")
    except (ValueError, KeyError, OSError, RuntimeError, ImportError) as error:
        raise _refusal(spec, folder, error) from error


def _refusal(spec: str, folder: Path, error: Exception) -> UnsupportedModel:
    reason = str(error).strip().split("\n")[0]
    return UnsupportedModel(
        f"{spec} cannot be loaded: {reason}",
        where=str(folder),
        hint="a causal language model that transformers knows by itself is needed, with whole safetensors weights",
    )


def _check_vocabulary(model: PreTrainedModel, tokenizer: ChatTokenizer, spec: str) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.size > rows:
        raise InvalidInput(
            f"{spec}: its tokenizer has {tokenizer.size} tokens, its embedding {rows} rows",
            hint="tokenizer and weights come from two different models",
        )


def _end_ids(model: PreTrainedModel, tokenizer: ChatTokenizer) -> frozenset[int]:
    """Every id the model's files call an end, in configs, tokenizer or chat template."""
    found: set[int | None] = set()
    for source in (model.config, model.generation_config):
        ids = getattr(source, "eos_token_id", None)
        found.update(ids if isinstance(ids, list | tuple) else [] if ids is None else [ids])
    found.update((tokenizer.eos_id, tokenizer.turn_end_id))
    return frozenset(id for id in found if id is not None)
