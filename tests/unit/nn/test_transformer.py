"""The general backbone against plain transformers and PEFT, for every family: one padded batch with all logits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from espalier.core.errors import UnsupportedModel
from espalier.core.events import Event
from espalier.nn.adapters import attach_adapters, find_targets
from espalier.nn.backbone import Backbone
from espalier.nn.crossentropy import head_cross_entropy
from espalier.nn.lora import LoraSpec
from espalier.nn.probe import transformer_backbone
from espalier.nn.transformer import Transformer
from espalier.testing.families import FAMILIES, WINDOW, family_model, widen
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import Pack, join, lay, lay_branches

SPEC = LoraSpec(rank=4, alpha=8)
Gradients = dict[str, Tensor | None]


def _documents(vocabulary: int) -> list[Tokenized]:
    draw = random.Random(3)
    made = []
    for n, size in enumerate((5, 4 * WINDOW + 3, 2, 2 * WINDOW)):
        weights = [0.0, *(draw.choice((0.0, 0.5, 1.0)) for _ in range(size - 1))]
        weights[-1] = 1.0
        made.append(Tokenized(str(n), [draw.randrange(vocabulary) for _ in range(size)], weights))
    return made


def _reference(model: nn.Module, documents: Sequence[Tokenized]) -> Tensor:
    """The weighted mean loss of one padded batch, from all logits."""
    t = max(len(document.ids) for document in documents)
    ids, weights = torch.zeros(len(documents), t, dtype=torch.long), torch.zeros(len(documents), t)
    seen = torch.zeros_like(ids)
    for n, document in enumerate(documents):
        size = len(document.ids)
        ids[n, :size], weights[n, :size], seen[n, :size] = (
            torch.tensor(document.ids),
            torch.tensor(document.weights),
            1,
        )
    logits = model(input_ids=ids, attention_mask=seen, use_cache=False).logits
    logp = torch.log_softmax(logits[:, :-1].float(), -1).gather(2, ids[:, 1:, None]).squeeze(2)
    return -(logp * weights[:, 1:]).sum() / weights.sum()


def _loss(backbone: Backbone, packs: Sequence[Pack]) -> tuple[float, Gradients]:
    """The mean loss over all packs and its gradients, summed pack by pack."""
    total = sum(float(pack.weights.sum()) for pack in packs)
    names = list(backbone.parameters)
    loss, grads = 0.0, dict[str, Tensor | None].fromkeys(names)
    for pack in packs:
        hidden = backbone.hidden(pack)
        share = head_cross_entropy(
            hidden, backbone.head(), torch.from_numpy(pack.targets), torch.from_numpy(pack.weights / total)
        )
        found = torch.autograd.grad(share, list(backbone.parameters.values()), allow_unused=True)
        loss += float(share.detach())
        for name, grad in zip(names, found, strict=True):
            before = grads[name]
            grads[name] = grad if before is None else before if grad is None else before + grad
    return loss, grads


def _in_two(documents: Sequence[Tokenized]) -> list[Pack]:
    return [join([lay(document) for document in documents[:2]]), join([lay(document) for document in documents[2:]])]


def _check(loss: float, grads: Gradients, wanted: Tensor, parameters: Mapping[str, Tensor]) -> None:
    """Loss, the whole gradient and every tensor's gradient; one that is all but zero may be off by its rounding."""
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-6)
    theirs = dict(
        zip(parameters, torch.autograd.grad(wanted, list(parameters.values()), allow_unused=True), strict=True)
    )
    assert grads.keys() == theirs.keys()
    whole = sum(float(grad.norm()) ** 2 for grad in theirs.values() if grad is not None) ** 0.5
    off = 0.0
    for name, grad in theirs.items():
        mine = grads[name]
        if grad is None or mine is None:
            assert grad is mine or not torch.cat([x.flatten() for x in (grad, mine) if x is not None]).any(), name
            continue
        distance = float((mine.double() - grad.double()).norm())
        off += distance**2
        assert distance <= 1e-6 * float(grad.norm()) + 1e-7 * whole, name
    assert off**0.5 <= 1e-6 * whole


def _plain(name: str) -> PreTrainedModel:
    model = family_model(name)
    model.set_attn_implementation("eager")
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_every_gradient_of_full_tuning_equals_the_padded_full_logit_reference(name: str) -> None:
    model, plain = family_model(name), _plain(name)
    documents = _documents(model.config.vocab_size)
    backbone = transformer_backbone(model, dict(model.named_parameters()))
    assert backbone.reason == ""
    _check(*_loss(backbone, _in_two(documents)), _reference(plain, documents), dict(plain.named_parameters()))


def _targets(name: str) -> str | list[str]:
    """What PEFT is told: in a mixture of experts all-linear is router and experts too, which stay frozen here."""
    return ["q_proj", "k_proj", "v_proj", "o_proj"] if name in {"qwen-3-moe", "mixtral"} else "all-linear"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_gradient_of_an_adapter_equals_that_of_peft(name: str) -> None:
    model = family_model(name)
    adapters = attach_adapters(model, SPEC, seed=0)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in adapters.layers.values():
            layer.b.normal_(0, 0.1, generator=draw)  # a fresh adapter changes nothing, which would prove little
    plain = get_peft_model(_plain(name), LoraConfig(r=4, lora_alpha=8, target_modules=_targets(name)))
    theirs = {n.replace(".default", ""): p for n, p in plain.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for key, tensor in adapters.state().items():
            theirs[key].copy_(tensor)
    learning = {name.removeprefix("base_model.model."): tensor for name, tensor in theirs.items()}
    backbone = transformer_backbone(model, adapters.named_parameters())
    assert backbone.parameters.keys() == learning.keys()  # the layers PEFT calls all-linear are ours
    documents = _documents(model.config.vocab_size)
    _check(*_loss(backbone, _in_two(documents)), _reference(plain, documents), learning)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shared_prompt_computed_once_equals_one_document_per_answer(name: str) -> None:
    model = family_model(name)
    backbone = transformer_backbone(model, dict(model.named_parameters()))
    draw = random.Random(7)
    prompt, *answers = (
        [draw.randrange(model.config.vocab_size) for _ in range(size)] for size in (11, 6, 1, 2 * WINDOW)
    )
    shared = lay_branches("x", prompt, [(answer, [1.0] * len(answer)) for answer in answers])
    alone = [Tokenized("x", prompt + answer, [0.0] * len(prompt) + [1.0] * len(answer)) for answer in answers]
    loss, grads = _loss(backbone, [join([lay(alone[0]), shared])])
    wanted, theirs = _loss(backbone, [join([lay(one)]) for one in (alone[0], *alone)])
    assert loss == pytest.approx(wanted, rel=1e-6)
    whole = sum(float(grad.norm()) ** 2 for grad in theirs.values() if grad is not None) ** 0.5
    off = sum(float((grads[n] - g).norm()) ** 2 for n, g in theirs.items() if g is not None) ** 0.5  # type: ignore[misc, operator]
    assert off <= 1e-6 * whole


_SHAPE: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_OTHERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "attention sinks": ("GptOssConfig", {"head_dim": 8, "num_local_experts": 4, "sliding_window": WINDOW}, ""),
    "a scaled head": ("CohereConfig", {}, ""),
    "a divided head": ("GraniteConfig", {"logits_scaling": 4.0}, ""),
    "latent attention": (
        "DeepseekV3Config",
        {
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 2,
            "topk_group": 1,
            "moe_intermediate_size": 24,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 12,
            "first_k_dense_replace": 1,
        },
        "",
    ),
    "learned positions and a biased head": ("PhiConfig", {"partial_rotary_factor": 0.5}, ""),
    "a recurrence": ("MambaConfig", {"state_size": 4}, "linear_attention"),
    "convolutions": ("Lfm2Config", {"layer_types": ["conv", "full_attention"]}, "conv"),
    "an attention of its own": ("FalconConfig", {"alibi": True}, "cannot be replaced"),
    "attention in chunks": (
        "Llama4TextConfig",
        {"head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2, "attention_chunk_size": WINDOW},
        "chunked_attention",
    ),
}


def _other(kind: str) -> PreTrainedModel:
    config, settings, _ = _OTHERS[kind]
    made = getattr(transformers, config)(**{**_SHAPE, **settings})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return widen(AutoModelForCausalLM.from_config(made, attn_implementation="eager"), 0).eval()


@pytest.mark.parametrize("kind", _OTHERS)
def test_other_architectures_are_exact_too_and_say_when_they_cannot_be_packed(kind: str) -> None:
    model, plain = _other(kind), _other(kind)
    seen: list[Event] = []
    backbone = transformer_backbone(model, dict(model.named_parameters()), emit=seen.append)
    reason = _OTHERS[kind][2]
    assert [event.kind for event in seen] == (["train.unpacked"] if reason else [])
    assert reason in backbone.reason
    assert bool(reason) == bool(backbone.reason)
    documents = _documents(99)
    _check(*_loss(backbone, _in_two(documents)), _reference(plain, documents), dict(plain.named_parameters()))


def test_in_a_mixture_of_experts_adapters_stand_where_peft_reads_them_too() -> None:
    settings = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "mlp_only_layers": [0]}
    model = AutoModelForCausalLM.from_config(transformers.Qwen3MoeConfig(**_SHAPE, **settings))
    assert hasattr(model.model.layers[0].mlp, "gate_proj")  # a dense layer, whose names PEFT takes for the experts'
    names = find_targets(model, SPEC)
    assert {name.rpartition(".")[2] for name in names} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    with pytest.raises(UnsupportedModel, match="stay frozen"):
        find_targets(model, LoraSpec(targets=("q_proj", "up_proj")))


def test_of_a_model_that_also_sees_the_part_that_reads_is_trained() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**sizes, "vocab_size": 99, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": WINDOW}
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config={**sizes, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=98,
        boi_token_index=97,
        eoi_token_index=96,
    )
    model = AutoModelForCausalLM.from_config(config)
    adapters = attach_adapters(model, SPEC, seed=0)
    assert all(name.startswith("model.language_model.") for name in adapters.layers)
    assert len(adapters.layers) == 14
    backbone = transformer_backbone(model, adapters.named_parameters())
    assert backbone.reason == ""
    _, grads = _loss(backbone, _in_two(_documents(95)))
    assert all(grad is not None for grad in grads.values())


def test_a_model_can_be_made_a_backbone_again() -> None:
    model = family_model("gemma-2")
    pack = join([lay(document) for document in _documents(model.config.vocab_size)])
    first, again = (transformer_backbone(model, {}).hidden(pack) for _ in range(2))
    assert torch.equal(first, again)


def test_packs_computed_by_several_threads_at_once_do_not_meet() -> None:
    model = family_model("gemma-2")
    backbone = transformer_backbone(model, dict(model.named_parameters()))
    draw = np.random.default_rng(0)
    documents = [
        Tokenized(str(n), draw.integers(0, model.config.vocab_size, 3 + n).tolist(), [0.0] + [1.0] * (2 + n))
        for n in range(24)
    ]
    packs = [join([lay(document), lay(documents[0])]) for document in documents]
    alone = [backbone.hidden(pack).detach() for pack in packs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pack: backbone.hidden(pack).detach(), packs))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_layers_computed_again_in_the_backward_pass_give_the_same_gradients_under_dropout() -> None:
    found = []
    for again in (False, True):
        model = family_model("mistral")
        adapters = attach_adapters(model, LoraSpec(rank=4, dropout=0.3), seed=0)
        with torch.no_grad():
            for layer in adapters.layers.values():
                layer.b.normal_(0, 0.1, generator=torch.Generator().manual_seed(5))
        backbone = transformer_backbone(model, adapters.named_parameters(), checkpointing=again)
        pack = join([lay(document) for document in _documents(model.config.vocab_size)], seed=11)
        with _counted() as kept:
            loss, grads = _loss(backbone, [pack])
        found.append((loss, grads, sum(kept)))
    (loss, grads, kept_all), (same_loss, same, kept_few) = found
    assert same_loss == loss
    assert all(torch.equal(same[name], grad) for name, grad in grads.items())  # type: ignore[arg-type]
    assert kept_few < kept_all / 3


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_full_tuning_in_bf16_keeps_float32_gradients_near_those_of_float32(stored: torch.dtype) -> None:
    model = family_model("gemma-3")
    loss, grads = _loss(transformer_backbone(model, _learning(model)), _in_two(_documents(model.config.vocab_size)))
    model = family_model("gemma-3").to(stored)
    backbone = transformer_backbone(model, _learning(model), torch.bfloat16)
    assert {tensor.dtype for tensor in backbone.parameters.values()} == {torch.float32}
    near_loss, near = _loss(backbone, _in_two(_documents(model.config.vocab_size)))
    assert near_loss == pytest.approx(loss, rel=2e-2)
    for name, grad in grads.items():
        assert near[name].dtype == torch.float32  # type: ignore[union-attr]
        assert torch.cosine_similarity(near[name].flatten(), grad.flatten(), dim=0) > 0.99, name  # type: ignore[union-attr]


def test_adapters_learn_in_float32_beside_a_frozen_base_in_bf16() -> None:
    found = []
    for dtype in (None, torch.bfloat16):
        model = family_model("gemma-3")
        adapters = attach_adapters(model, SPEC, seed=0)
        backbone = transformer_backbone(model, adapters.named_parameters(), dtype)
        found.append(_loss(backbone, _in_two(_documents(model.config.vocab_size))))
    assert {tensor.dtype for tensor in backbone.parameters.values()} == {torch.float32}
    assert backbone.head().matrix.dtype == torch.bfloat16
    (loss, grads), (near_loss, near) = found
    assert near_loss == pytest.approx(loss, rel=2e-2)
    for name in grads:
        if name.endswith("lora_B.weight"):  # A has no gradient before the first step
            assert torch.cosine_similarity(near[name].flatten(), grads[name].flatten(), dim=0) > 0.99  # type: ignore[union-attr]


def _learning(model: PreTrainedModel) -> dict[str, Tensor]:
    """All but the first layer, which stays in the type it is stored in."""
    return {name: tensor for name, tensor in model.named_parameters() if ".layers.0." not in name}


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_lengths_at_which_rotary_angles_change_for_everybody_are_refused(kind: str) -> None:
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    limit = 32
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "original_max_position_embeddings": limit}
    settings = {**_SHAPE, "max_position_embeddings": limit if kind == "dynamic" else 64, "rope_parameters": rope}
    model = AutoModelForCausalLM.from_config(transformers.LlamaConfig(**settings))
    backbone = transformer_backbone(model, {})
    assert backbone.longest_tokens == limit
    short, long = (Tokenized("x", [5] * size, [0.0] + [1.0] * (size - 1)) for size in (limit + 1, limit + 2))
    backbone.hidden(join([lay(short), lay(short)]))
    with pytest.raises(UnsupportedModel, match="context_tokens"):
        backbone.hidden(join([lay(short), lay(long)]))


def test_a_model_whose_documents_see_one_another_in_a_pack_goes_one_at_a_time() -> None:
    model = family_model("llama-3")
    norm = model.model.norm
    norm.forward = _leak(norm.forward)
    backbone = transformer_backbone(model, {})
    assert backbone.reason == "documents of a pack see one another"


def test_a_model_that_changes_between_two_looks_at_it_is_refused() -> None:
    model = family_model("llama-3")
    norm, calls = model.model.norm, iter(range(10**6))
    forward = norm.forward
    norm.forward = lambda x: forward(x) * (1 + next(calls))
    with pytest.raises(UnsupportedModel, match="cannot be trained exactly"):
        transformer_backbone(model, {})


def test_a_head_that_is_more_than_a_product_is_refused() -> None:
    model = family_model("llama-3")
    model.lm_head.register_forward_hook(lambda *call: call[2] ** 3)
    with pytest.raises(UnsupportedModel, match="its logits are not its head's product"):
        transformer_backbone(model, {})


def test_an_adapter_on_the_head_is_refused() -> None:
    model = family_model("llama-3")
    attach_adapters(model, LoraSpec(rank=2, targets=("lm_head",)), seed=0)
    with pytest.raises(UnsupportedModel, match="plain linear layer for a head"):
        transformer_backbone(model, {})


def test_outside_of_a_pack_the_model_says_how_to_use_it() -> None:
    model = family_model("llama-3")
    backbone = transformer_backbone(model, {})
    assert isinstance(backbone, Transformer)
    with pytest.raises(UnsupportedModel, match="packed training") as refusal:
        model(input_ids=torch.tensor([[1, 2, 3]]))
    assert "set_attn_implementation('sdpa')" in refusal.value.hint
    model.set_attn_implementation("sdpa")
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape[1] == 3


@contextmanager
def _counted() -> Iterator[list[int]]:
    """Numbers in each tensor that is kept for the backward pass."""
    sizes: list[int] = []

    def keep(x: Tensor) -> Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield sizes


def _leak(forward: Any) -> Any:
    def with_the_mean(x: Tensor) -> Tensor:
        out: Tensor = forward(x)
        return out + 0.1 * out.cumsum(1)

    return with_the_mean
