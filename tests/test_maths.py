"""maths: one answer, three verdicts, and the laws of being the same."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.maths.answer import final
from gristmill.verifiers.maths.verify import maths
from gristmill.verifiers.verifier import find, load

MAX = 10**6


def score(gold, response, prompt="", **params):
    return maths(**params)(prompt, response, gold=gold).score


def boxed(gold, answer, prompt="", **params):
    return score(gold, f"\\boxed{{{answer}}}", prompt, **params)


@pytest.mark.parametrize(
    ("response", "answer", "how"),
    [
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}", "boxed"),
        (r"\fbox{7}", "7", "boxed"),
        (r"\boxed 9.", "9", "boxed"),
        (r"\boxed{5} has an open \boxed{6", "5", "boxed"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}", "boxed"),
        (r"<think>\boxed{4}</think>The answer is 5.", "5", "stated"),
        (r"<think>no</think><answer>\boxed{5}</answer>", "5", "boxed"),
        ("<answer> 5 </answer>", "5", "tagged"),
        ("It costs 3 and 4.\n#### 1,234", "1,234", "stated"),
        ("The final answer is $x^2$. I hope it is correct.", "x^2", "stated"),
        ("**Final Answer**\n\n12", "12", "last"),
        ("The answer is:\n$$\\frac12$$", r"\frac12", "stated"),
        ("2 * 2 = <<2*2=4>>4\nA: 4", "4", "stated"),
        ("The answer is 5. No, the answer is 6.", "6", "stated"),
        ("We see\n\\[ x = 7 \\]", "x = 7", "last"),
        ("It is $3$ of $4$", "4", "last"),
        ("so she makes $18 every day", "$18", "last"),
        ("Thus x = 5 or x = 7", "x = 5 or x = 7", "last"),
        ("That leaves 1,234.5.", "1,234.5", "last"),
        ("Yes", "Yes", "last"),
    ],
)
def test_the_final_answer(response, answer, how):
    found = final("", response)
    assert found is not None and (found.groups, found.how) == (((answer,),), how)


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("", ""),
        ("", "   \n\n"),
        ("", r"<think>It is \boxed{5}"),
        ("", r"<think>It is \boxed{5}</think>"),
        ("What is 2+3?\n<think>", r"It is \boxed{5}"),
        ("", "$\n5\n$"),
    ],
)
def test_thinking_and_silence_are_no_answer(prompt, response):
    verdict = maths()(prompt, response, gold="5")
    assert (verdict.score, verdict.reason) == (0.0, "no_answer")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (r"\boxed{5} or rather \boxed{6}", "several_answers"),
        (r"\boxed{6} or rather \boxed{5}", "several_answers"),
        (r"\boxed{5} or \boxed{6}", "different"),
        (r"\boxed{5 \text{ or } 6}", "different"),
        (r"\boxed{\{5, 6\}}", "different"),
        (r"\boxed{5 = 6}", "different"),
        (r"\boxed{x = 6 = 5}", "different"),
        (r"\boxed{5 \pm 1}", "different"),
        ("The answer is 5 or 6.", "different"),
        ("x = 6 or x = 5", "different"),
        ("".join(f"\\boxed{{{n}}} maybe " for n in range(50)), "several_answers"),
    ],
)
def test_a_hedge_is_wrong(response, reason):
    verdict = maths()("", response, gold="5")
    assert (verdict.score, verdict.reason) == (0.0, reason)


def test_the_same_answer_twice_is_one_answer():
    assert score("5", r"\boxed{5}, I repeat \boxed{5.0}") == 1.0
    assert score(r"\frac{639}{40}", r"\boxed{15\frac{39}{40}} or \boxed{\frac{639}{40}}") == 1.0


@pytest.mark.parametrize(
    ("prompt", "gold", "answer"),
    [
        ("Solve $2x=22$.", "x=11", "2x=22"),
        ("Solve $x^2=1$ for positive $x$.", "1", "x^2=1"),
        ("Expand $(x+1)^2$.", "x^2+2x+1", "(x+1)^2"),
        (r"Simplify $\frac{12}{18}$.", "2/3", r"\frac{12}{18}"),
        (r"Where is $-2\le x\le 7$?", "[-2,7]", r"-2 \le x \le 7"),
    ],
)
def test_restating_the_question_is_no_answer(prompt, gold, answer):
    verdict = maths()(prompt, f"\\boxed{{{answer}}}", gold=gold)
    assert (verdict.score, verdict.reason) == (0.0, "restated_question")


def test_an_answer_that_the_prompt_does_not_hold_is_no_echo():
    assert boxed("[-2,7]", r"-2\le x\le 7", r"Solve $x^2-5x\le 14$.") == 1.0
    assert boxed("5", "a+b=5", "Find $a+b$.") == 1.0
    assert boxed("11", "2x=11", "Solve $2x=22$.") == 0.0
    assert boxed("1/2", r"\frac12", r"A coin shows heads with probability $\frac{1}{2}$. And tails?") == 1.0


@pytest.mark.parametrize(
    "gold", ["", "  ", r"\frac{1}{", "}{", "the cat sat on the mat", None, {"a": 1}, [], [None], True]
)
def test_a_gold_answer_that_nobody_can_read_is_not_judged(gold):
    verdict = maths().rows([{"prompt": "", "response": r"\boxed{5}", "gold": gold}])[0]
    assert verdict.score is None and verdict.reason in ("gold_unreadable", "no_column")


@pytest.mark.parametrize(
    "answer", ["five", "?", r"\frac{1}{", "}", "x", "the cat sat on the mat", r"\alpha", "5 5", "--"]
)
def test_an_answer_that_nobody_can_read_is_wrong(answer):
    assert boxed("5", answer) == 0.0


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("blah 3 * 6 = <<3*6=18>>18\n#### 18", "18"),
        (r"Hence $\boxed{\frac12}$.", "0.5"),
        ("$11$", "x = 11"),
        (18, "18.0"),
        (3431580.0, "3,431,580"),
        (["4", "5"], "5"),
    ],
)
def test_gold_answers_come_in_many_forms(gold, answer):
    assert boxed(gold, answer) == 1.0
    assert boxed(gold, "19") == 0.0
    reference = maths().reference({"gold": gold})
    assert reference is not None and score(gold, reference) == 1.0


def test_algebra_out_of_time_is_not_judged():
    verdict = maths(seconds=0.0)("", r"\boxed{1+x}", gold="x+1")
    assert (verdict.score, verdict.reason) == (None, "timeout")


@pytest.mark.parametrize(
    "response",
    [
        "\\boxed{" * (MAX // 7),
        "\\boxed{6}" * (MAX // 9),
        "\\boxed{6} no \\boxed{7} " * (MAX // 20),
        "{" * MAX,
        "$" * MAX,
        "\\" * MAX,
        "6" * MAX,
        "6," * (MAX // 2),
        "answer is " * (MAX // 10),
        "<think>" * (MAX // 7),
        "6 a\n" * (MAX // 4),
        "**" * (MAX // 2),
        "\\boxed{" + "{" * 1900 + "6" + "}" * 1900 + "}",
        "\\boxed{" + "(" * 1900 + "6" + ")" * 1900 + "}",
        "\\boxed{" + "\\sqrt{" * 45 + "6" + "}" * 45 + "}",
        "\\boxed{" + "x+" * 1900 + "6}",
        "\\boxed{" + "6=" * 1900 + "7}",
        "\\boxed{" + "(1,2)\\cup" * 400 + "(1,2)}",
        "\\boxed{9^{9^{9}}}",
        "\\boxed{9^{9^{9^{9}}}}",
        "\\boxed{1000000!}",
        "\\boxed{((((9!)!)!)!)!}",
        "\\boxed{6" + "!" * 3000 + "}",
        "\\boxed{1e999999999}",
        "\\boxed{\u200b\u200b6\u200b}",
    ],
    ids=lambda text: text[:24],
)
def test_hostile_responses_are_wrong_at_once(response):
    assert score("5", response) == 0.0


def test_hostile_characters_hide_nothing():
    assert boxed("1234", "1\u200b2\u200d34") == 1.0
    assert boxed("-5", "\u22125") == 1.0
    assert boxed("5", "\u22125") == 0.0
    assert boxed("12", "1 2") == 0.0


@pytest.mark.parametrize(
    ("gold", "answer", "want"),
    [
        ("$18", "18 dollars", 1.0),
        ("$18", "18 cents", 0.0),
        ("440 cm^2", r"440\text{ square centimeters}", 1.0),
        ("440 cm^2", "440", 1.0),
        ("440", "440 cm^2", 1.0),
        ("440 cm^2", "440 cm", 0.0),
        ("45 mph", "45 miles per hour", 1.0),
        ("5m", "5", 0.0),  # in a gold answer, m is a variable
        ("5", "5m", 1.0),
        ("5", "5x", 0.0),
        ("5", "5 million", 0.0),
        ("5,000,000", r"5\text{ million dollars}", 1.0),
        ("5", "5 squared", 0.0),
        ("5", "5 sec", 1.0),
        ("5 min", "5 sec", 0.0),
        ("90", r"90^\circ", 1.0),
        (r"\text{1:03 PM}", "1:03 p.m.", 1.0),
        (r"\text{1:03 PM}", "1:03 a.m.", 0.0),
        (r"18\text{ units}", r"18\text{ cm}", 1.0),
    ],
)
def test_units(gold, answer, want):
    assert boxed(gold, answer) == want


@pytest.mark.parametrize(
    ("gold", "answer", "want"),
    [
        ("x=1, y=2", "(1,2)", 1.0),
        ("x=1, y=2", "(x,y)=(1,2)", 1.0),
        ("x=1, y=2", "y=2, x=1", 1.0),
        ("x=1, y=2", "(2,1)", 0.0),
        ("x=11", "y=11", 0.0),
        ("y=2x+1", "f(x)=2x+1", 1.0),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)", 1.0),
        (r"(-\infty,3)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,3)", 1.0),
        (r"x<1 \text{ or } x>3", r"(-\infty,1)\cup(3,\infty)", 1.0),
        (r"x>1 \text{ and } x\le3", "(1,3]", 1.0),
        (r"|x|<3", "(-3,3)", 1.0),
        ("[1,3]", "(1,3)", 0.0),
        ("[1,3]", r"\{1,3\}", 0.0),
        ("7:32", "14:64", 1.0),
        ("3:4", "0.75", 1.0),
        ("2112_6", "2112", 1.0),
        ("2112_6", "500", 0.0),
        (r"\emptyset", r"\text{no solution}", 1.0),
        (r"\mathbb{R}", r"(-\infty,\infty)", 1.0),
        (r"\text{B, E, G}", "G, B, E", 1.0),
        ("1, 1, 2", "1, 2, 2", 0.0),
        ("1,000, 2,000", "2000, 1000", 1.0),
    ],
)
def test_structures(gold, answer, want):
    assert boxed(gold, answer) == want


fractions = st.fractions(max_denominator=10**4).filter(lambda value: abs(value) < 10**9)


def latex(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}" if value.denominator > 1 else str(value)


SPELLINGS = [
    latex,
    str,
    lambda value: f"${latex(value)}$",
    lambda value: latex(value).replace("frac", "dfrac"),
    lambda value: latex(value).replace("{", " { ").replace("}", " } "),
    lambda value: f"\\left({latex(value)}\\right)",
    lambda value: latex(value).replace("-", "\u2212"),
    lambda value: f"x = {latex(value)}",
    lambda value: f"\\displaystyle {latex(value)}.",
    lambda value: f"{latex(value)}\\text{{ cm}}",
]


@settings(max_examples=60)
@given(fractions, fractions, st.sampled_from(SPELLINGS), st.sampled_from(SPELLINGS))
def test_numbers_are_the_same_however_they_are_spelled(one, other, spell, respell):
    assert boxed(spell(one), respell(one)) == 1.0
    assert boxed(spell(one), respell(other)) == boxed(spell(other), respell(one)) == float(one == other)


@settings(max_examples=60)
@given(st.lists(st.integers(-99, 99), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_a_list_has_no_order_and_a_tuple_has(values, random):
    shuffled = random.sample(values, len(values))
    listed, mixed = (", ".join(map(str, order)) for order in (values, shuffled))
    assert boxed(listed, mixed) == 1.0
    assert boxed(f"({listed})", f"({mixed})") == float(values == shuffled)
    assert boxed(listed, ", ".join(map(str, [*values, 100]))) == boxed(listed, ", ".join(map(str, values[1:]))) == 0.0


@settings(max_examples=80)
@given(st.text(st.sampled_from("0123456789xyabc+-*/_=<>(),.[]{}\\ |:$%"), max_size=40))
def test_any_answer_to_a_number_gets_a_verdict(text):
    assert boxed("5", text) in (0.0, 1.0)


@settings(max_examples=80)
@given(st.text(st.sampled_from("0123456789xyabc+-*/^_=<>(),.[]{} |!:%"), max_size=40))
def test_a_gold_answer_passes_itself_or_cannot_be_read(text):
    reference = maths().reference({"gold": text})
    if reference is not None and "=" not in text:  # 1=2 contradicts itself
        assert score(text, reference) == 1.0


def _judge(n: int) -> float | None:
    return maths()("", f"\\boxed{{(x+{n})^2}}", gold=f"x^2+{2 * n}x+{n * n}").score


def test_it_works_in_threads_processes_and_asyncio():
    told: list[float | None] = []
    threads = [threading.Thread(target=lambda n=n: told.append(_judge(n))) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [1.0] * 8
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        assert processes.map(_judge, range(1, 5)) == [1.0] * 4

    async def many() -> list[float | None]:
        return list(await asyncio.gather(*(asyncio.to_thread(_judge, n) for n in range(1, 5))))

    assert asyncio.run(many()) == [1.0] * 4


@pytest.mark.parametrize("params", [{"percent": "x"}, {"names": "x"}, {"places": -1}])
def test_a_parameter_that_means_nothing_is_refused(params):
    with pytest.raises(InputError, match="given"):
        maths(**params)("", r"\boxed{6}", gold="5")


def test_it_is_found_by_name_and_its_parameters_are_its_identity():
    made = find("maths")(percent="ratio")
    assert made.identity["params"] == {"percent": "ratio", "places": 6, "names": "droppable", "seconds": 5.0}
    assert load(made.identity)("", r"\boxed{0.1}", gold=r"10\%").score == 1.0
    assert made("", r"\boxed{5}", gold="5").evidence["rung"] == "text"
