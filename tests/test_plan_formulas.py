"""The formulas of a plan: each against the figures of the paper it comes from, shapes and activations against torch."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.dataops.dataset import InputError
from gristmill.training.plan import flops, laws, memory
from gristmill.training.plan.chips import Chip, chip
from gristmill.training.plan.shape import PUBLISHED, Shape, count, derive, shape_of

COUNTS = st.floats(7, 12.5).map(lambda power: int(10**power))
SHAPES = st.sampled_from(sorted(PUBLISHED))


# Shapes


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smollm2-135m", 134_515_008),
        ("tinyllama-1.1b", 1_100_048_384),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-2-7b", 6_738_415_616),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-2-13b", 13_015_864_320),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3.1-70b", 70_553_706_496),
        ("llama-3.1-405b", 405_853_388_800),
    ],
)
def test_published_models_have_the_parameters_their_checkpoints_have(name, parameters):
    assert PUBLISHED[name].parameters == parameters


def test_what_is_not_counted_is_as_little_as_the_module_says():
    assert PUBLISHED["qwen3-0.6b"].parameters == pytest.approx(596_049_920, rel=2e-5)
    assert PUBLISHED["gpt-3-175b"].parameters == pytest.approx(174_600e6, rel=3e-4)  # Brown et al. 2020, table D.1


@given(parameters=COUNTS, vocab_size=st.sampled_from([1_000, 32_000, 49_152]))
def test_a_count_becomes_a_shape_of_about_that_count(parameters, vocab_size):
    shape = derive(parameters, vocab_size)
    assert shape.parameters == pytest.approx(parameters, rel=0.02)
    assert shape.width == shape.heads * shape.head_dim and shape.heads % shape.kv_heads == 0
    assert shape.ffn % 64 == 0 and 1 < shape.ffn / shape.width < 5


def test_transformers_counts_the_same_parameters():
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    for shape in (derive(350_000_000), derive(7_000_000_000), PUBLISHED["llama-3.2-1b"]):
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**_config(shape)))
        assert sum(p.numel() for p in model.parameters()) == shape.parameters


def _config(shape: Shape) -> dict:
    return {
        "num_hidden_layers": shape.layers, "hidden_size": shape.width, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "intermediate_size": shape.ffn,
        "vocab_size": shape.vocab_size, "tie_word_embeddings": shape.tied,
    }  # fmt: skip


@given(name=SHAPES.filter(lambda name: PUBLISHED[name].gated))
def test_a_config_gives_its_shape_back(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(_config(PUBLISHED[name])))
    assert shape_of(str(folder)) == shape_of(str(folder / "config.json")) == PUBLISHED[name] == shape_of(name.upper())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"hidden_size": 64}, "num_hidden_layers"),
        ({**_config(PUBLISHED["llama-2-7b"]), "num_local_experts": 8}, "mixture of experts"),
        ({**_config(PUBLISHED["llama-2-7b"]), "num_attention_heads": "32"}, "whole numbers"),
        ({**_config(PUBLISHED["llama-2-7b"]), "num_hidden_layers": 0}, "whole numbers"),
        ([1, 2], "no model configuration"),
    ],
)
def test_a_config_that_is_none_is_refused_by_name(tmp_path, config, said):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=said) as refused:
        shape_of(str(path))
    assert str(path) in str(refused.value)


def test_counts_are_read_as_people_write_them():
    said = ["1.3B", "350M", "2e9", "26_000", "1.4T", "7 b", "1"]
    assert [count(text, "n") for text in said] == [
        1_300_000_000, 350_000_000, 2_000_000_000, 26_000, 1_400_000_000_000, 7_000_000_000, 1,
    ]  # fmt: skip
    for text in ("", "0", "-1B", "B", "1.3X", "nan", "inf", "1e30", "1,3B", "0.2"):
        with pytest.raises(InputError, match="--tokens"):
            count(text, "--tokens")


# Laws


def test_chinchilla_is_70b_on_1_4t():
    assert laws.chinchilla_tokens(70e9) == 1.4e12
    budget = flops.six_nd(70e9, 1.4e12)
    assert budget == pytest.approx(5.88e23, rel=1e-3)  # Gopher's budget of 5.76e23, Hoffmann et al. 2022, section 4
    assert laws.chinchilla_split(budget) == pytest.approx((70e9, 1.4e12))


def test_the_rounded_law_says_what_was_published_with_it():
    """Chinchilla and Gopher under equation 10 of Hoffmann et al. 2022, as worked out in public many times."""
    rounded = laws.Law(1.69, 406.4, 410.7, 0.34, 0.28, "equation 10")
    assert rounded.loss(70e9, 1.4e12) == pytest.approx(1.936, abs=1e-3)
    assert rounded.loss(280e9, 300e9) == pytest.approx(1.993, abs=1e-3)


@pytest.mark.parametrize(
    ("parameters", "tokens", "spent"),
    [(400e6, 9.2e9, 2.21e19), (1e9, 27.1e9, 1.62e20), (10e9, 410.1e9, 2.46e22), (67e9, 4.1e12, 1.71e24)],
)
def test_the_fitted_law_gives_the_papers_table(parameters, tokens, spent):
    law = laws.LAWS["hoffmann-2022"]  # Hoffmann et al. 2022, table A3, approach 3
    assert law.tokens_for(parameters) == pytest.approx(tokens, rel=0.11)
    assert law.split(spent) == pytest.approx((parameters, tokens), rel=0.05)


def test_the_refit_agrees_with_twenty_tokens_per_parameter_where_the_first_fit_did_not():
    refit, first = laws.LAWS["besiroglu-2024"], laws.LAWS["hoffmann-2022"]
    exponents = [law.beta / (law.alpha + law.beta) for law in (refit, first)]
    assert exponents == pytest.approx([0.5126, 0.4565], abs=1e-4)  # Besiroglu et al. 2024, section 3
    parameters, tokens = refit.split(5.76e23)
    assert tokens / parameters == pytest.approx(20, rel=0.1)
    parameters, tokens = first.split(5.76e23)
    assert tokens / parameters > 50


@given(parameters=COUNTS, law=st.sampled_from(sorted(laws.LAWS)))
def test_no_other_split_of_the_same_flops_has_less_loss(parameters, law):
    fit = laws.LAWS[law]
    tokens = fit.tokens_for(parameters)
    assert fit.split(flops.six_nd(parameters, tokens)) == pytest.approx((parameters, tokens))
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert fit.loss(parameters, tokens) < fit.loss(parameters * factor, tokens / factor)


def test_repeated_tokens_are_worth_what_muennighoff_et_al_say():
    assert laws.effective_tokens(1e9, 0.5e9) == 0.5e9 and laws.effective_tokens(1e9, 1e9) == 1e9
    # After R* repetitions, they are worth on average 1 - 1/e of fresh ones (section 3.1).
    repeated = laws.effective_tokens(1.0, 1 + laws.R_STAR) - 1
    assert repeated / laws.R_STAR == pytest.approx(1 - 1 / math.e)
    assert laws.effective_tokens(1.0, 4.0) / 4 == pytest.approx(0.93, abs=0.01)  # four epochs are almost fresh
    assert laws.effective_tokens(1.0, 1e6) == pytest.approx(1 + laws.R_STAR)


@given(unique=st.floats(1, 1e13), seen=st.floats(1, 1e13), more=st.floats(1, 10))
def test_more_tokens_are_never_worth_less_nor_more_than_fresh_ones(unique, seen, more):
    worth = laws.effective_tokens(unique, seen)
    assert worth <= seen * (1 + 1e-9)
    assert worth <= laws.effective_tokens(unique, seen * more) * (1 + 1e-9)
    assert worth <= laws.effective_tokens(unique * more, seen) * (1 + 1e-9)


# FLOPs and time


def test_gpt_3_took_3_14e23_flops():
    assert flops.six_nd(174.6e9, 300e9) == pytest.approx(3.14e23, rel=1e-3)  # Brown et al. 2020, table D.1
    gpt3 = PUBLISHED["gpt-3-175b"]
    parts = flops.token_flops(gpt3, 2048)
    assert sum(parts.values()) == pytest.approx(flops.six_nd(gpt3.parameters, 1) + parts["attention"], rel=1e-3)


@pytest.mark.parametrize(
    ("layers", "width", "heads", "parameters", "ratio"),
    [
        (10, 640, 10, 73e6, 1.03),
        (20, 1024, 16, 305e6, 1.10),
        (26, 1792, 14, 1143e6, 1.04),
        (40, 3584, 28, 6796e6, 0.99),
    ],
)
def test_the_fuller_count_against_6nd_is_hoffmanns_table_a4(layers, width, heads, parameters, ratio):
    """Without embeddings and logits, as the paper's table was made, and without its half percent of softmax."""
    shape = Shape(layers, width, heads, heads, width // heads, 4 * width, gated=False)
    parts = flops.token_flops(shape, 2048)
    assert (parts["layers"] + parts["attention"]) / flops.six_nd(parameters, 1) == pytest.approx(ratio, abs=0.015)


def test_palm_ran_at_46_percent():
    """540B on 6,144 TPU v4 at 238,300 tokens/s: 46.2 % with attention, 45.7 % without (Chowdhery et al. 2022, B)."""
    palm, tpu = 540.35e9, Chip("tpu-v4", 275e12, 32e9, 1.2e12, "PaLM")
    attention = flops.token_flops(Shape(118, 18432, 48, 1, 256, 73728), 2048)["attention"]
    assert flops.token_rate(6 * palm + attention, tpu, 6144, 0.462) == pytest.approx(238_300, rel=2e-3)
    assert flops.token_rate(6 * palm, tpu, 6144, 0.457) == pytest.approx(238_300, rel=2e-3)


def test_llama_2_7b_keeps_half_a_megabyte_per_token_and_decodes_at_the_bandwidth():
    shape, a100 = PUBLISHED["llama-2-7b"], chip("a100")
    assert flops.kv_bytes(shape) == 524_288  # 2 x 2 bytes x 32 layers x 4096
    assert flops.kv_bytes(PUBLISHED["llama-3.1-70b"]) == 327_680  # eight groups
    one = flops.decode_rate(shape, 2, a100, 1)
    assert one == pytest.approx(a100.bandwidth / (2 * shape.parameters), rel=1e-3)
    assert one < flops.decode_rate(shape, 2048, a100, 64) < 64 * one


# Memory


@pytest.mark.parametrize(("sharding", "gb"), [("ddp", 120), ("zero1", 31.4), ("zero2", 16.6), ("fsdp", 1.9)])
def test_zeros_figure_1(sharding, gb):
    """7.5B parameters on 64 GPUs: Rajbhandari et al. 2020."""
    assert sum(memory.states(7.5e9, 64, sharding, "master").values()) / 1e9 == pytest.approx(gb, abs=0.05)


def test_bytes_per_parameter():
    total = {name: sum(memory.states(1.0, 1, "ddp", name).values()) for name in memory.PRECISIONS}
    assert total == {"autocast": 16, "master": 16, "bf16": 8}


def test_a_layer_keeps_what_korthikanti_et_al_count():
    """Table 2's 34 s b h, less two dropout masks of s b h each; norms in bfloat16 as there."""
    gpt3 = PUBLISHED["gpt-3-175b"]
    ours = memory.layer_bytes(gpt3, "master") - (memory.NORMS["master"] - 8) * gpt3.width
    assert ours - 4 * gpt3.heads - 8 == (34 - 2) * gpt3.width
    whole = replace(flops.STAGES["pretrain"], loss="whole")
    kept = memory.row_bytes(gpt3, 2048, whole, True, "master")
    one_at_a_time = max(memory.layer_bytes(gpt3, "master"), 14 * gpt3.vocab_size) + 8 * gpt3.width
    assert kept - 2048 * one_at_a_time == 2 * 2048 * gpt3.width * 96  # 2 s b h L: section 5


def test_a_chunk_of_logits_is_as_large_as_the_steps_say():
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    from gristmill.training import model

    assert memory.CHUNK == model.CHUNK == TOKEN_CHUNK_SIZE * _CHUNKED_LOGPROB_CHUNK_SIZE
    assert memory.TILE == _CHUNKED_LOGPROB_CHUNK_SIZE
    scores, labels = torch.zeros(512, 2048, dtype=torch.bfloat16), torch.zeros(512, dtype=torch.int64)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model.slopes(scores, labels, 1e-4)
    taken = [event.nbytes() for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = max(itertools.accumulate(taken)) / scores.numel() + 2
    assert peak == pytest.approx(memory.LOGIT_BYTES["chunks"], rel=0.01)


def test_the_loss_takes_a_chunk_however_many_rows_there_are():
    llama, stages = PUBLISHED["llama-3.1-8b"], flops.STAGES
    matrix = 4 * llama.vocab_size * llama.width
    assert memory.loss_bytes(llama, stages["pretrain"]) == 19 * 2**27 + matrix
    assert memory.loss_bytes(llama, stages["sft"]) == 2 * 2**27 + matrix
    assert memory.loss_bytes(llama, stages["pretrain"], 100) == 19 * 100 * llama.vocab_size + matrix
    assert memory.loss_bytes(llama, stages["sft"], 100) == 2 * 100 * 32_768 + matrix
    assert memory.loss_bytes(llama, stages["ppo"]) == 0
    whole = memory.row_bytes(llama, 4096, stages["ppo"], False, "autocast")
    assert whole - memory.row_bytes(llama, 4096, replace(stages["ppo"], loss="tiles"), False, "autocast") == (
        4096 * (14 * llama.vocab_size - 4 * llama.width)
    )


@pytest.mark.parametrize("precision", ["autocast", "bf16"])
def test_transformers_keeps_these_bytes_for_the_backward_pass(precision):
    """The slope over tokens is `layer_bytes`; what does not grow with tokens is autocast's copy of the weights."""
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = Shape(3, 128, 4, 2, 32, 320, 64)

    def kept(layers: int, tokens: int) -> int:
        config = {**_config(shape), "num_hidden_layers": layers}
        model = LlamaForCausalLM(LlamaConfig(**config, attn_implementation="sdpa"))
        model = model.to(torch.bfloat16) if precision == "bf16" else model
        own = {p.data_ptr() for p in model.parameters()}
        found: dict[int, torch.Tensor] = {}

        def note(tensor):
            if tensor.untyped_storage().data_ptr() not in own:
                found[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        ids, positions = torch.zeros((1, tokens), dtype=torch.int64), torch.arange(tokens)[None]
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"),
        ):
            model.model(input_ids=ids, position_ids=positions, use_cache=False)
        return sum(tensor.untyped_storage().nbytes() for tensor in found.values())

    layer = {tokens: kept(3, tokens) - kept(2, tokens) for tokens in (128, 256)}
    assert layer[256] - layer[128] == 128 * memory.layer_bytes(shape, precision)
    copies = 2 * shape.matrices if precision == "autocast" else 0
    assert layer[256] == 256 * memory.layer_bytes(shape, precision) + copies


@given(
    name=SHAPES, gpus=st.integers(1, 64), stage=st.sampled_from(sorted(flops.STAGES)),
    precision=st.sampled_from(sorted(memory.PRECISIONS)), seq_len=st.sampled_from([512, 4096, 32768]),
)  # fmt: skip
def test_checkpointing_and_more_gpus_never_cost_memory(name, gpus, stage, precision, seq_len):
    def rows(gpus: int, sharding: str, checkpointing: bool) -> int:
        arguments = (PUBLISHED[name], seq_len, chip("h100"), gpus, flops.STAGES[stage], sharding, checkpointing)
        return memory.budget(*arguments, precision).rows

    for sharding in memory.SHARDINGS:
        assert rows(gpus, sharding, False) <= rows(gpus, sharding, True)
        assert rows(gpus, sharding, True) <= rows(gpus + 1, sharding, True)
    least = memory.least_gpus(PUBLISHED[name], seq_len, chip("h100"), flops.STAGES[stage], precision)
    if least is not None:
        assert rows(least, "fsdp", True) >= 1
        assert least == 1 or rows(least - 1 if least <= 8 else least - 8, "fsdp", True) == 0


def test_the_four_models_of_ppo_and_the_engine_of_grpo_are_in_the_bill():
    shape, h100 = PUBLISHED["llama-3.2-1b"], chip("h100")
    n = shape.parameters
    fixed = {
        name: memory.budget(shape, 2048, h100, 1, stage, "ddp", False, "master").fixed
        for name, stage in flops.STAGES.items()
    }
    loss = {name: parts.pop("loss") for name, parts in fixed.items()}
    assert loss["pretrain"] > loss["sft"] == loss["dpo"] == loss["grpo"] > loss["ppo"] == 0
    assert fixed["pretrain"] == fixed["sft"] and sum(fixed["sft"].values()) == 16 * n
    assert fixed["dpo"]["frozen"] == 2 * n
    assert sum(fixed["ppo"].values()) == 2 * 16 * n + 2 * 2 * n
    assert fixed["grpo"]["engine"] == pytest.approx(0.3 * 80e9)
    eight = memory.engine_bytes(PUBLISHED["llama-2-13b"], 4096, h100)  # the weights alone are more than the share
    assert eight == 2 * PUBLISHED["llama-2-13b"].parameters + 4096 * flops.kv_bytes(PUBLISHED["llama-2-13b"])
