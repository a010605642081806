"""The loss of pretraining and its attention: equal to the plain way, and blind to what else is packed in a row."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from packed import pack
from transformers import AutoConfig, AutoModelForCausalLM

from gristmill.dataops.dataset import InputError
from gristmill.training import model as model_file
from gristmill.training.model import FAMILIES, Objective, Piece, Shape, build, configuration, logits, losses
from gristmill.training.pretraining.attention import boundaries
from gristmill.training.shards import Batch, Shards

CPU, VOCABULARY, Z_LOSS = torch.device("cpu"), 50, 1e-2


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Batch:
    """Rows of one document, of several, of one that is a single token, and with padding."""
    rng = np.random.default_rng(0)
    cuts = ([32], [11, 1, 14], [5, 20, 7], [2])
    rows = [[rng.integers(1, VOCABULARY, length).tolist() for length in row] for row in cuts]
    packed = pack(tmp_path_factory.mktemp("data"), rows, seq_len=32, vocab_size=VOCABULARY)
    return Shards(packed).gather(np.arange(4))


def sharp(model: torch.nn.Module) -> torch.nn.Module:
    """Far from uniform attention, so that a leak would show."""
    for parameter in model.parameters():
        parameter.data.mul_(2)
    return model


def gradients(loss: torch.Tensor, model: torch.nn.Module) -> list[torch.Tensor]:
    loss.backward()
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return found


def family(name: str) -> torch.nn.Module:
    """A small model of an architecture, the same whenever it is made."""
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 32,
        "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    if name == "mistral":
        sizes["sliding_window"] = None
    torch.manual_seed(0)
    return sharp(AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes)))


def plain(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    loss, squares = losses(logits(model, batch.tokens, batch.positions), batch.labels)
    return loss + Z_LOSS * squares


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_those_of_the_plain_way(batch, name):
    """transformers' own mask between documents, all logits at once, and autograd."""
    model = family(name)
    expected = plain(model, batch)
    wanted = gradients(expected, model)
    model = family(name)
    objective = Objective(model)
    total, loss = objective(Piece.of(batch, CPU), Z_LOSS)
    assert total.item() == pytest.approx(expected.item(), rel=1e-5) and loss < total and not loss.requires_grad
    for found, right in zip(gradients(total, model), wanted, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        assert [part.item() for part in objective(Piece.of(batch, CPU), Z_LOSS)] == [total.item(), loss.item()]


def test_the_size_of_chunks_changes_nothing(batch, monkeypatch):
    objective = Objective(sharp(build(configuration(Shape(depth=1), VOCABULARY), 0)))
    whole, _ = objective(Piece.of(batch, CPU), Z_LOSS)
    wanted = gradients(whole, objective)
    monkeypatch.setattr(model_file, "CHUNK", 7 * VOCABULARY + 3)  # 128 tokens in 19 chunks, the last of 2
    cut, _ = objective(Piece.of(batch, CPU), Z_LOSS)
    assert cut.item() == pytest.approx(whole.item(), rel=1e-6)
    torch.testing.assert_close(gradients(cut, objective), wanted, rtol=1e-4, atol=1e-4)


def test_a_batch_without_targets_has_no_loss_and_no_gradient(batch):
    objective = Objective(build(configuration(Shape(depth=1), VOCABULARY), 0))
    empty = Batch(batch.tokens, torch.full_like(batch.labels, -100), batch.positions, batch.length)
    total, loss = objective(Piece.of(empty, CPU), Z_LOSS)
    assert (total.item(), loss.item()) == (0.0, 0.0)
    assert all(not gradient.any() for gradient in gradients(total, objective))


def test_documents_do_not_see_each_other(batch):
    """What stands in one document has no influence on the loss of another, to the last bit, nor on its gradients."""
    model = sharp(build(configuration(Shape(depth=2, width=64, heads=4, kv_heads=2), VOCABULARY), 0))
    objective = Objective(model)
    second = torch.zeros_like(batch.labels, dtype=torch.bool)
    second[2, 5:25] = True
    labels = batch.labels.masked_fill(~second, -100)
    other = batch.tokens.masked_fill(~second, 3)  # every token of every other document
    found = []
    for tokens in (batch.tokens, other):
        loss, _ = objective(Piece.of(Batch(tokens, labels, batch.positions, batch.length), CPU))
        found.append(loss.item())
    assert found[0] == found[1] > 0
    inside = batch.tokens.clone()
    inside[2, 5] = 3
    changed, _ = objective(Piece.of(Batch(inside, labels, batch.positions, batch.length), CPU))
    assert changed.item() != found[0]


def test_boundaries_cut_rows_and_documents(batch):
    ends, longest = boundaries(batch.positions)
    real = [0, 32, 43, 44, 58, 64, 69, 89, 96, 98]  # the paddings of rows 1 and 3 start at 58 and at 98
    assert ends.tolist() == [*real, *[128] * 7] and longest == 32 and ends.dtype == torch.int32
    rows = torch.arange(3, 9).repeat(2, 1)  # a row that does not start with a document is still a sequence of its own
    assert boundaries(rows)[0].tolist() == [0, 6, 12]


def test_checkpointing_computes_the_same_bits(batch):
    found = []
    for checkpointing in (False, True):
        objective = Objective(build(configuration(Shape(depth=2), VOCABULARY), 0), checkpointing=checkpointing).train()
        total, _ = objective(Piece.of(batch, CPU))
        kept = sum(layer.gradient_checkpointing for layer in objective.layers)
        found.append((total.item(), gradients(total, objective), kept))
    assert found[0][0] == found[1][0] and (found[0][2], found[1][2]) == (0, 2)
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile on a CPU needs a C++ compiler (c++)")
def test_compiled_and_plain_give_the_same_loss(batch):
    found = []
    for compiled in (False, True):
        objective = Objective(sharp(build(configuration(Shape(depth=1), VOCABULARY), 0)), compiled=compiled).train()
        total, _ = objective(Piece.of(batch, CPU), Z_LOSS)
        found.append((total.item(), gradients(total, objective)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-3, atol=1e-3)


def test_models_that_ask_for_more_than_causal_attention_are_refused(batch):
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}
    gpt2 = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", vocab_size=50, n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(InputError, match="'gpt2' cannot be pretrained; there are: llama"):
        Objective(gpt2)
    config = AutoConfig.for_model("mistral", **sizes, num_attention_heads=2, num_key_value_heads=2, sliding_window=4)
    with pytest.raises(InputError, match="a sliding window"):
        Objective(AutoModelForCausalLM.from_config(config))(Piece.of(batch, CPU))
