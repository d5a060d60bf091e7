"""Read the weights of a base that is stored quantised (nn/quantisedbase) into a model as they are. Knows no adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from espalier.core.errors import InvalidInput
from espalier.nn.locate import list_weight_files
from espalier.nn.quantized import QuantizedLinear, Scheme, quantise_model
from espalier.nn.streaming import remake_buffers


def load_stored_quantised(folder: Path, config: Any, dtype: torch.dtype, scheme: Scheme) -> PreTrainedModel:
    """The model that `save_quantised` wrote, frozen, its unquantised parts in `dtype`.

    Raises InvalidInput when the files hold other tensors than the configuration asks for.
    """
    model = _make_empty(config, dtype, scheme)
    wanted = model.state_dict()
    found: dict[str, Tensor] = {}
    for path in list_weight_files(folder):
        found |= load_file(path)
    tied = _tied_names(model)
    lacking = sorted(wanted.keys() - found.keys() - tied)
    strange = sorted(found.keys() - wanted.keys())
    wrong = sorted(n for n in found.keys() & wanted.keys() if found[n].shape != wanted[n].shape)
    if lacking or strange or wrong:
        raise InvalidInput(
            f"the quantised weights do not fit their configuration, first {(lacking + strange + wrong)[0]}",
            where=str(folder),
            hint="quantise the original again",
        )
    # Codes and scales stay as they are stored, at addresses of their own (a file's are not aligned for kernels); all
    # else takes the type the empty model has for it.
    packed = {f"{n}.weight." for n, module in model.named_modules() if isinstance(module, QuantizedLinear)}
    state = {
        name: tensor.clone() if name.rpartition(".")[0] + "." in packed else tensor.to(wanted[name].dtype)
        for name, tensor in found.items()
    }
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.requires_grad_(False)


def _make_empty(config: Any, dtype: torch.dtype, scheme: Scheme) -> PreTrainedModel:
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    if not remake_buffers(model, torch.device("cpu")):  # it keeps numbers that only its own start-up makes
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    quantise_model(model, scheme)
    return model


def _tied_names(model: PreTrainedModel) -> set[str]:
    """Names under which a file may lack a tensor, because it is another one's."""
    return set(getattr(model, "all_tied_weights_keys", None) or {})
