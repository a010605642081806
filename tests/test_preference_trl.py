"""TRL's preference losses are the papers' formulas, on our rows and log-probabilities: a change of theirs shows here.

Every loss is computed by TRL on a small model, and from our log-probabilities by its published formula in a line.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from preferred import one_thread, pairs, replies, thumbs
from tinychat import base, chat_tokenizer
from trl import DPOConfig, KTOConfig

from gristmill.training.chat import open_chat
from gristmill.training.checkpoint import load_model
from gristmill.training.post.data import planned
from gristmill.training.preferences import trainer as trainers
from gristmill.training.preferences.logprobs import pad, reply_logps, score
from gristmill.training.preferences.rows import PAIRS, THUMBS, Rows, lists, read_rows
from gristmill.training.preferences.spec import DPO, KTO

BETA, SMOOTHING, N = 0.3, 0.1, 8
SILENT = {"report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_length": None,
          "remove_unused_columns": False, "train_sampling_strategy": "sequential"}  # fmt: skip


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cost(x):
    """-log sigmoid(x)."""
    return np.logaddexp(0, -x)


def smoothed(gap):
    """What cost is on average where a share of the pairs is the wrong way round."""
    return (1 - SMOOTHING) * cost(BETA * gap) + SMOOTHING * cost(-BETA * gap)


#: c and r: log ratios of chosen and rejected to the reference; m and n: tokens. Sources: Rafailov et al. 2023
#: (sigmoid), Zhao et al. 2023 (hinge), Azar et al. 2023 eq. 17 with mean log ratios (ipo), Ji et al. 2024 eq. 16 (exo),
#: Chen et al. 2024 (nca), Chowdhury et al. 2024 (robust), Jung et al. 2024 (bco), Wu et al. 2024 (sppo), D'Oosterlinck
#: et al. 2024 eq. 7 and 8 (apo), Lu et al. 2024 eq. 5 with temperature 0.05 (discopop), Melnyk et al. 2024 (aot).
B, E = BETA, SMOOTHING
FORMULAS = {
    "sigmoid": lambda c, r, m, n: cost(B * (c - r)),
    "hinge": lambda c, r, m, n: np.maximum(0, 1 - B * (c - r)),
    "ipo": lambda c, r, m, n: (c / m - r / n - 1 / (2 * B)) ** 2,
    "exo_pair": lambda c, r, m, n: sum(
        sigmoid(s * B * (c - r)) * (np.log(sigmoid(s * B * (c - r))) - np.log(p)) for s, p in ((1, 1 - E), (-1, E))
    ),
    "nca_pair": lambda c, r, m, n: cost(B * c) + 0.5 * cost(-B * c) + 0.5 * cost(-B * r),
    "robust": lambda c, r, m, n: ((1 - E) * cost(B * (c - r)) - E * cost(-B * (c - r))) / (1 - 2 * E),
    "bco_pair": lambda c, r, m, n: cost(B * c) + cost(-B * r),
    "sppo_hard": lambda c, r, m, n: (c - 0.5 / B) ** 2 + (r + 0.5 / B) ** 2,
    "apo_zero": lambda c, r, m, n: 1 - sigmoid(B * c) + sigmoid(B * r),
    "apo_down": lambda c, r, m, n: sigmoid(B * c) + 1 - sigmoid(B * (c - r)),
    "discopop": lambda c, r, m, n: (
        sigmoid(B * (c - r) / 0.05) * np.exp(-B * (c - r)) + sigmoid(-B * (c - r) / 0.05) * cost(B * (c - r))
    ),
    "sigmoid_norm": lambda c, r, m, n: cost(B * (c / m - r / n)),
    "aot_unpaired": lambda c, r, m, n: sum(
        p * cost(s * B * (np.sort(c) - np.sort(r))) for s, p in ((1, 1 - E), (-1, E))
    ),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("trl")
    chat = chat_tokenizer(root)
    with one_thread():
        yield root, open_chat(chat), base(root, chat, seed=1), chat


def reference(model, rows: Rows, column: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The model's log-probabilities, others near them, and the replies' lengths."""
    given = list(zip(lists(rows.table["prompt_ids"]), lists(rows.table[column]), strict=True))
    own = score(model, given, 0)
    other = (own + np.random.default_rng(seed).normal(0, 2, len(own))).astype(np.float32)
    return own, other, np.array([len(reply) for _, reply in given])


@pytest.fixture(scope="module")
def dpo(world, tmp_path_factory):
    root, chat, start, dataset = world
    model = load_model(start)
    rows = read_rows(pairs(root, dataset, replies(N)), chat, model.config, PAIRS)
    (chosen, ref_chosen, m), (rejected, ref_rejected, n) = (reference(model, rows, c, k) for k, c in enumerate(PAIRS))
    names = ("ref_chosen_logps", "ref_rejected_logps")
    table = rows.table.append_column(names[0], [ref_chosen]).append_column(names[1], [ref_rejected])
    collate = trainers.pair_collator(trainers.Table([Rows(rows.dataset, table, 0)], PAIRS, names), 0, names)
    args = DPOConfig(
        str(tmp_path_factory.mktemp("out")),
        beta=BETA,
        label_smoothing=SMOOTHING,
        precompute_ref_log_probs=True,
        **SILENT,
    )
    trainer = trainers.Dpo(
        model,
        args=args,
        data_collator=collate,
        train_dataset=planned([N], [1.0], 0, N),
        processing_class=chat.tokenizer,
    )
    batch = collate([{"source": 0, "row": row} for row in range(N)])
    return trainer, batch, (chosen, rejected, ref_chosen, ref_rejected, m, n)


@pytest.mark.parametrize("loss", [*FORMULAS, "aot"])
def test_a_loss_of_trl_is_the_papers(dpo, loss):
    trainer, batch, (chosen, rejected, ref_chosen, ref_rejected, m, n) = dpo
    trainer.loss_types = [loss]
    with torch.no_grad():
        found = trainer.compute_loss(trainer.model, batch).item()
    if loss == "aot":
        told = smoothed(np.sort(chosen - rejected) - np.sort(ref_chosen - ref_rejected))
    else:
        told = FORMULAS[loss](chosen - ref_chosen, rejected - ref_rejected, m, n)
    assert found == pytest.approx(told.mean(), rel=1e-4, abs=1e-5)


def test_every_loss_on_offer_is_checked_and_trl_has_no_more():
    assert set(DPO) == {*FORMULAS, "aot"}


def test_sft_weight_adds_the_mean_over_all_chosen_tokens(dpo):
    """TRL's "sft" is a mean over tokens, not over pairs."""
    trainer, batch, (chosen, _, _, _, m, _) = dpo
    trainer.loss_types, trainer.loss_weights = ["sigmoid"], [1.0]
    with torch.no_grad():
        alone = trainer.compute_loss(trainer.model, batch).item()
        trainer.loss_types, trainer.loss_weights = ["sigmoid", "sft"], [1.0, 0.25]
        both = trainer.compute_loss(trainer.model, batch).item()
    trainer.loss_weights = [1.0]
    assert both - alone == pytest.approx(-0.25 * chosen.sum() / m.sum(), rel=1e-4)


def test_discopop_is_uphill_where_training_starts():
    """Said in the spec's docstring: with no margin yet, less margin lowers the loss."""
    at = [FORMULAS["discopop"](np.array(margin / B), np.array(0.0), 1, 1) for margin in (-0.01, 0.0, 0.01)]
    assert at[0] < at[1] < at[2]


@pytest.mark.parametrize("loss", KTO)
def test_kto_is_ethayarajh_et_al_equation_7_with_kl_of_mismatched_replies(world, tmp_path, loss):
    root, chat, start, dataset = world
    model, old = load_model(start), load_model(base(root / "other", dataset, seed=2))
    rows = read_rows(thumbs(root, dataset, replies(N)), chat, model.config, THUMBS, ("label",))
    collate = trainers.thumb_collator(trainers.Table([rows], THUMBS, ("label",)), 0, None)
    args = KTOConfig(str(tmp_path), beta=BETA, loss_type=loss, desirable_weight=1.2, undesirable_weight=0.7, **SILENT)
    trainer = trainers.Kto(
        model, ref_model=old, args=args, data_collator=collate, train_dataset=planned([N], [1.0], 0, N),
        processing_class=chat.tokenizer,
    )  # fmt: skip
    with torch.no_grad():
        found = trainer.compute_loss(model, collate([{"source": 0, "row": row} for row in range(N)])).item()
    given = list(zip(lists(rows.table["prompt_ids"]), lists(rows.table["completion_ids"]), strict=True))
    mismatched = [(prompt, given[k - 1][1]) for k, (prompt, _) in enumerate(given)]
    ratio = score(model, given, 0) - score(old, given, 0)
    kl = max(0.0, (score(model, mismatched, 0) - score(old, mismatched, 0)).mean()) if loss == "kto" else 0.0
    liked = rows.table["label"].to_numpy().astype(bool)
    told = np.where(liked, 1.2 * (1 - sigmoid(B * (ratio - kl))), 0.7 * (1 - sigmoid(B * (kl - ratio))))
    assert found == pytest.approx(told.mean(), rel=1e-4)


def test_log_probabilities_are_those_of_each_row_alone(world):
    """Padding and neighbours change nothing, and only the reply counts."""
    _, _, start, _ = world
    model = load_model(start)
    given = [(prompt, chosen) for prompt, chosen, _ in replies(9, longest=12)]
    together = score(model, given, 0, tokens=40)
    for (prompt, reply), found in zip(given, together, strict=True):
        logits = model(torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
        steps = [logits[len(prompt) + k - 1, token].item() for k, token in enumerate(reply)]
        assert found == pytest.approx(sum(steps), rel=1e-5)
        per_token = reply_logps(model, pad([(prompt, reply)], 0))[0]
        assert per_token[: len(prompt) - 1].abs().sum() == 0
        torch.testing.assert_close(per_token[len(prompt) - 1 :], torch.tensor(steps), atol=1e-5, rtol=1e-5)
