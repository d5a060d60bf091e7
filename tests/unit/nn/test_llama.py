"""The lean training forward against transformers: the same loss and the same gradients, whatever the packing."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from espalier.nn.attention import BLOCK, causal_attention
from espalier.nn.crossentropy import CHUNK_ROWS, head_cross_entropy
from espalier.nn.llama import LlamaShape, head, hidden_rows
from espalier.tokens.mask import Tokenized
from espalier.tokens.pack import rectangle

SHAPES = {
    "many key heads, tied": LlamaShape(97, 48, 3, 4, 4, 12, 80, 5e5, 1e-5, tied=True),
    "few key heads, own head": LlamaShape(97, 48, 2, 4, 2, 16, 80, 1e4, 1e-6, tied=False),
}


def _model(shape: LlamaShape) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_width,
        rope_theta=shape.rope_theta,
        rms_norm_eps=shape.norm_eps,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=512,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.1)
    return model


def _documents() -> list[Tokenized]:
    draw = random.Random(3)
    made = []
    for n, size in enumerate((5, 40, BLOCK + 9, 17)):
        weights = [0.0, *(float(draw.random() < 0.4) for _ in range(size - 1))]
        weights[-1] = 1.0
        made.append(Tokenized(str(n), [draw.randrange(97) for _ in range(size)], weights))
    return made


def _reference(model: LlamaForCausalLM, documents: list[Tokenized]) -> torch.Tensor:
    """One padded batch with an attention mask and full logits, as transformers' own loss would have it."""
    t = max(len(document.ids) for document in documents)
    ids = torch.zeros(len(documents), t, dtype=torch.long)
    seen, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for n, document in enumerate(documents):
        size = len(document.ids)
        ids[n, :size] = torch.tensor(document.ids)
        seen[n, :size] = 1
        labels[n, :size] = torch.where(torch.tensor(document.weights) > 0, ids[n, :size], -100)
    loss: torch.Tensor = model(input_ids=ids, attention_mask=seen, labels=labels).loss
    return loss


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_loss_and_gradients_equal_the_padded_full_logit_reference(shape: LlamaShape) -> None:
    model, documents = _model(shape), _documents()
    wanted = _reference(model, documents)
    wanted.backward()  # type: ignore[no-untyped-call]
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    total = sum(document.supervised for document in documents)
    loss = torch.zeros(())
    for members in ([0, 1], [2], [3]):  # accumulated over rectangles of unequal weight
        part = rectangle([documents[i] for i in members])
        rows = hidden_rows(weights, shape, torch.from_numpy(part.ids), torch.from_numpy(part.rows), torch.float32)
        share = head_cross_entropy(
            rows,
            head(weights, shape, torch.float32),
            torch.from_numpy(part.targets),
            torch.from_numpy(part.weights) / total,
        )
        share.backward()  # type: ignore[no-untyped-call]
        loss += share.detach()
    torch.testing.assert_close(loss, wanted.detach(), rtol=2e-6, atol=0)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(weights[name].grad, parameter.grad, rtol=1e-4, atol=2e-7, msg=name)


@pytest.mark.parametrize("t", [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 50])
def test_attention_in_blocks_equals_torchs_own(t: int) -> None:
    torch.manual_seed(t)
    q, k, v = (torch.randn(3, t, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    out = causal_attention(q, k, v)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    torch.testing.assert_close(out, wanted)
    probe = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, (q, k, v), probe), torch.autograd.grad(wanted, (q, k, v), probe), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_cross_entropy_over_several_chunks_equals_torchs_own() -> None:
    torch.manual_seed(0)
    rows = CHUNK_ROWS + 37
    hidden, matrix = torch.randn(rows, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets, weights = torch.randint(0, 50, (rows,)), torch.rand(rows)
    ours = head_cross_entropy(hidden, matrix, targets, weights) * 0.5
    losses = torch.nn.functional.cross_entropy(hidden @ matrix.t(), targets, reduction="none")
    theirs = (losses * weights).sum() * 0.5
    torch.testing.assert_close(ours, theirs)
    for mine, wanted in zip(
        torch.autograd.grad(ours, (hidden, matrix)), torch.autograd.grad(theirs, (hidden, matrix)), strict=True
    ):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)


def test_a_documents_loss_does_not_depend_on_its_neighbours() -> None:
    shape = SHAPES["many key heads, tied"]
    model, documents = _model(shape), _documents()
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def rows_of(members: list[Tokenized]) -> torch.Tensor:
        part = rectangle(members)
        return hidden_rows(weights, shape, torch.from_numpy(part.ids), torch.from_numpy(part.rows), torch.float32)

    alone = rows_of([documents[0]])
    beside = rows_of([documents[0], documents[2]])[: len(alone)]
    torch.testing.assert_close(alone, beside)
