"""The lean decoder against transformers: one loss and one gradient, whatever is packed with what."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from tests.unit.nn.families import configs, distance, make_documents, make_model, padded_loss
from torch import Tensor
from transformers import PretrainedConfig

from espalier.core.errors import Conflict
from espalier.nn import layer
from espalier.nn.assembly import dense_decoder
from espalier.nn.crossentropy import head_cross_entropy, head_logp
from espalier.nn.decoder import LeanDecoder, Tape
from espalier.nn.optimizers import AdamW
from espalier.nn.shape import LeanShape, lean_shape
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import Pack, join, lay, lay_branches

CONFIGS = configs()
PLAIN = "llama, wide heads"


def shape_of(config: PretrainedConfig) -> LeanShape:
    shape = lean_shape(config)
    assert shape is not None
    return shape


def copied(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def packed_loss(decoder: LeanDecoder, packs: Sequence[Pack]) -> Tensor:
    """The mean over supervised tokens, accumulated over packs; gradients are left on the parameters."""
    total = sum(float(pack.weights.sum()) for pack in packs)
    loss = torch.zeros(())
    for pack in packs:
        targets, weights = torch.from_numpy(pack.targets), torch.from_numpy(pack.weights) / total
        share = head_cross_entropy(decoder.hidden(pack), decoder.head(), targets, weights)
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.detach()
    return loss


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_loss_and_every_gradient_equal_the_padded_full_logit_reference(name: str, recompute: bool) -> None:
    model, documents = make_model(CONFIGS[name]), make_documents()
    wanted = padded_loss(model, documents)
    wanted.backward()  # type: ignore[no-untyped-call]
    decoder = dense_decoder(copied(model), shape_of(model.config), torch.float32, recompute=recompute)
    loss = packed_loss(decoder, [join([lay(documents[i]) for i in members]) for members in ([0, 1], [2, 3])])
    assert distance(loss, wanted.detach()) <= 1e-6
    theirs = {n: parameter.grad for n, parameter in model.named_parameters()}
    assert decoder.parameters.keys() == theirs.keys()
    whole = torch.cat([gradient.flatten() for gradient in theirs.values() if gradient is not None]).norm()
    squares = 0.0
    for key, gradient in theirs.items():
        ours = decoder.parameters[key].grad
        assert ours is not None and gradient is not None
        difference = (ours - gradient).norm()
        squares += float(difference) ** 2
        # A bias of keys before no rotation has no gradient but rounding: hence the share of the whole.
        assert difference <= 3e-6 * gradient.norm() + 1e-7 * whole, key
    assert squares**0.5 <= 1e-6 * whole


@pytest.mark.parametrize("name", CONFIGS)
def test_branches_of_a_shared_prompt_equal_the_separate_sequences(name: str) -> None:
    model = make_model(CONFIGS[name])
    prompt, first, second = (document.ids for document in make_documents((30, 23, 9)))
    branched = join([lay_branches("b", prompt, [(first, [1.0] * len(first)), (second, [1.0] * len(second))])])
    unsupervised = [0.0] * len(prompt)
    apart = join(
        [lay(Tokenized("a", prompt + answer, unsupervised + [1.0] * len(answer))) for answer in (first, second)]
    )
    assert branched.tokens < apart.tokens
    gradients = []
    for pack in (branched, apart):
        decoder = dense_decoder(copied(model), shape_of(model.config), torch.float32)
        logp = head_logp(decoder.hidden(pack), decoder.head(), torch.from_numpy(pack.targets))
        probe = torch.linspace(-1, 1, len(logp))  # not all alike, so that a row in another's place shows
        (logp * probe).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append([logp.detach(), *(p.grad for p in decoder.parameters.values() if p.grad is not None)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-6)


def test_a_documents_rows_do_not_depend_on_its_neighbours() -> None:
    model, documents = make_model(CONFIGS[PLAIN]), make_documents()
    decoder = dense_decoder(copied(model), shape_of(model.config), torch.float32)
    alone = decoder.hidden(join([lay(documents[1])]))
    beside = decoder.hidden(join([lay(documents[2]), lay(documents[1]), lay(documents[0])]))
    before = documents[2].supervised
    torch.testing.assert_close(beside[before : before + len(alone)], alone)


@pytest.mark.parametrize(
    "learning",
    [
        ["model.layers.1.mlp.down_proj.weight"],
        ["model.layers.1.self_attn.k_proj.weight", "model.layers.2.input_layernorm.weight"],
        ["model.layers.2.post_attention_layernorm.weight"],
        ["lm_head.weight", "model.norm.weight"],
        ["model.embed_tokens.weight"],
    ],
    ids=lambda names: "+".join(names),
)
def test_a_frozen_rest_changes_no_gradient_and_has_none(learning: list[str]) -> None:
    model, packs = make_model(CONFIGS[PLAIN]), [join([lay(document) for document in make_documents()])]
    whole = dense_decoder(copied(model), shape_of(model.config), torch.float32)
    packed_loss(whole, packs)
    part = dense_decoder(copied(model), shape_of(model.config), torch.float32, learning=learning)
    packed_loss(part, packs)
    assert list(part.parameters) == [name for name in whole.parameters if name in learning]
    for name, parameter in part.parameters.items():
        torch.testing.assert_close(parameter.grad, whole.parameters[name].grad, rtol=1e-6, atol=0)


def test_nothing_is_kept_below_the_first_trained_layer_nor_without_gradients() -> None:
    model, pack = make_model(CONFIGS[PLAIN]), join([lay(document) for document in make_documents()])
    learning = ["model.layers.2.mlp.up_proj.weight"]
    decoder = dense_decoder(copied(model), shape_of(model.config), torch.float32, learning=learning)
    tape = Tape()
    decoder.run(pack, tape)
    assert len(tape.layers) == 1
    with torch.no_grad():
        assert not decoder.hidden(pack).requires_grad
    assert decoder.hidden(pack).requires_grad


@pytest.mark.parametrize("name", ["qwen 3", "smollm 3", "mistral, window"])
def test_attention_through_autograd_as_on_a_gpu_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, packs = make_model(CONFIGS[name]), [join([lay(document) for document in make_documents()])]
    found = []
    for by_autograd in (False, True):
        monkeypatch.setattr(layer, "has_flash", lambda x, way=by_autograd: way)
        decoder = dense_decoder(copied(model), shape_of(model.config), torch.float32)
        loss = packed_loss(decoder, packs)
        found.append(
            torch.cat([loss[None], *(p.grad.flatten() for p in decoder.parameters.values() if p.grad is not None)])
        )
    assert distance(*found) < 1e-6


def test_a_pass_back_happens_once() -> None:
    model, pack = make_model(CONFIGS[PLAIN]), join([lay(document) for document in make_documents()])
    decoder = dense_decoder(copied(model), shape_of(model.config), torch.float32)
    hidden = decoder.hidden(pack)
    hidden.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(Conflict, match="already"):
        hidden.sum().backward()  # type: ignore[no-untyped-call]


def test_a_step_of_the_optimizer_is_seen_by_the_next_pack() -> None:
    model, pack = make_model(CONFIGS[PLAIN]), join([lay(document) for document in make_documents()])
    decoder = dense_decoder(copied(model), shape_of(model.config), torch.bfloat16)
    optimizer = AdamW(decoder.parameters, lr=1e-2)
    losses = []
    for _ in range(4):
        for parameter in decoder.parameters.values():
            parameter.grad = None
        losses.append(float(packed_loss(decoder, [pack])))
        optimizer.step(1.0)
    assert losses == sorted(losses, reverse=True)
    changed = {name: parameter.detach() for name, parameter in decoder.parameters.items()}
    again = dense_decoder(changed, shape_of(model.config), torch.bfloat16)
    with torch.no_grad():
        assert torch.equal(decoder.hidden(pack), again.hidden(pack))


def test_packs_computed_at_once_are_the_packs_computed_one_by_one() -> None:
    model, documents = make_model(CONFIGS[PLAIN]), make_documents((60, 50, 40, 30, 20, 10))
    decoder = dense_decoder(copied(model), shape_of(model.config), torch.bfloat16)
    packs = [join([lay(document)]) for document in documents]
    parameters = list(decoder.parameters.values())

    def gradient(pack: Pack) -> tuple[Tensor, ...]:
        hidden = decoder.hidden(pack)
        return torch.autograd.grad(hidden.float().square().sum(), parameters, allow_unused=True)

    one_by_one = [gradient(pack) for pack in packs]
    with ThreadPoolExecutor(3) as pool:
        at_once = list(pool.map(gradient, packs))
    for mine, theirs in zip(one_by_one, at_once, strict=True):
        assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_bf16_stays_close_to_float32() -> None:
    model, pack = make_model(CONFIGS[PLAIN]), join([lay(document) for document in make_documents()])
    flat = []
    for dtype in (torch.float32, torch.bfloat16):
        decoder = dense_decoder(copied(model), shape_of(model.config), dtype)
        loss = packed_loss(decoder, [pack])
        gradients = [p.grad.flatten() for p in decoder.parameters.values() if p.grad is not None]
        flat.append((loss, torch.cat(gradients)))
    (exact, wanted), (rough, found) = flat
    assert abs(float(rough - exact)) < 5e-3 * float(exact)
    assert distance(found, wanted) < 0.03


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "gemma"},
        {"hidden_act": "gelu"},
        {"attention_dropout": 0.1},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ],
    ids=str,
)
def test_what_it_does_not_compute_exactly_has_no_lean_shape(change: dict[str, object]) -> None:
    config = CONFIGS[PLAIN]
    plain = {name: getattr(config, name) for name in ("model_type", *config.to_dict())}
    assert lean_shape(SimpleNamespace(**plain)) is not None
    assert lean_shape(SimpleNamespace(**plain | change)) is None
