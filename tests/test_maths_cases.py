"""Fifty-five cases that tell maths verifiers apart: pairs on which published ones agree or are known to be wrong."""

from __future__ import annotations

import pytest

from gristmill.verifiers.maths.verify import maths

SIX_TUPLES = ["(1,2,3)", "(1,3,2)", "(2,1,3)", "(2,3,1)", "(3,1,2)", "(3,2,1)"]

#: number, gold, answers that are the gold answer, answers that are not (all of them boxed).
CASES: list[tuple[int, str, list[str], list[str]]] = [
    (1, "7425000", ["7,425,000"], ["7,425"]),
    (2, "1000", ["1 000"], ["1 00"]),
    (3, "1000.99", ["1000,99"], ["1000,9"]),
    (3, "1.22", ["1,22"], ["1, 22"]),
    (4, "1000.99", ["$1,000.99", r"\$1,000.99", "1,000.99€", "1,000.99m²"], ["$1,000.98"]),
    (5, "2", ["2"], ["AZYUK2A"]),
    (6, "1/3", [r"\frac13", r"\cfrac{1}{3}", r"\dfrac{1}{3}", r"\tfrac13", r"\frac{1}{3}\text{meters}"], [r"\frac31"]),
    (7, "1/12", ["0.0833333333333333"], ["0.0833"]),
    (9, r"28\%", ["28 percent", "28 pct", "28%", r"28\%"], ["29 percent"]),
    (11, r"918\frac{1}{2}", ["918.5", r"918 \frac{1}{2}", "918 1/2"], ["459"]),
    (12, "[0,1)", ["[0, 1)"], ["(0,1)", "[0,9)"]),
    (14, "(1,3)", [r"\{1,3\}"], ["(3,1)"]),
    (14, r"\{1,3\}", ["(1,3)"], ["(3,1)"]),
    (15, r"\{1\pm\sqrt{5},-2\}", [r"\{-2,1+\sqrt5,1-\sqrt5\}"], [r"\{-2,1+\sqrt5\}"]),
    (16, r"\pm 2021", [r"\{-2021,2021\}", "2021, -2021"], ["2021"]),
    (
        17,
        r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}",
        [
            r"\begin{bmatrix}1&2\\3&4\end{bmatrix}",
            r"\left[\begin{array}{cc} 1 & 1+1 \\ 3 & 2\cdot 2 \end{array}\right]",
        ],
        [],
    ),
    (18, r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", [], [r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}"]),
    (19, r"\tan^2 y+1", [r"\sec^2 y"], [r"\sec y"]),
    (20, "34x+45y-20z+100=0", ["-34x-45y+20z-100=0"], ["34x+45y-20z-100=0"]),
    (21, r"\frac{x^2}4+\frac{y^2}3=1", [r"\frac{x^2}{16}+\frac{y^2}{12}=\frac14"], [r"\frac{x^2}4+\frac{y^2}3=2"]),
    (22, "2x+4y-3=0", [r"y=-\frac{x}{2}+\frac34"], [r"y=\frac{x}{2}+\frac34"]),
    (23, "x<1", ["-x>-1"], ["x>-1", r"x\le 1"]),
    (24, "11", ["x=11"], ["x=12"]),
    (24, "2x+z=1", ["2x+z=1"], ["1"]),
    (25, "1/3", [r"x=1/3\approx 1.3"], [r"x=1.3\approx 1/3"]),
    (26, r"-2\le x\le 7", [r"x\in[-2,7]", "[-2,7]"], ["(-2,7)"]),
    (26, r"x\in[-2,7]", [], [r"-2\le x\le 7"]),
    (27, r"1\le|z|\le 3/2", [r"[-3/2,-1]\cup[1,3/2]"], [r"[1,3/2]"]),
    (28, "1112112_3", ["1112112_{3}"], [r"2012_3\cdot 2_3", "1112112_4"]),
    (29, "11111111100", [r"11,\! 111,\! 111,\! 100"], []),
    (29, "32349", ["32,349"], ["32, 349"]),
    (32, ",".join(SIX_TUPLES), [", ".join(SIX_TUPLES[::-1])], [", ".join([*SIX_TUPLES[:5], "(3,2)"])]),
    (33, "AB=4, CD=5", [r"\{4,5\}", "CD=5, AB=4"], ["AB=5, CD=4"]),
    (34, "S:S'=7:32", ["7:32"], ["32:7"]),
    (34, "12:00", [], ["1:00"]),
    (35, r"0.06\text{ yuan}", ["0.06"], [r"0.06\text{ dollars}"]),
    (35, r"15\mbox{ cm}^2", ["15", r"15\text{ cm}^2"], [r"15\text{ cm}"]),
    (36, r"\text{C}", [r"\text{(C)}", "(C)", "C", "(C) 12"], ["(D) 12"]),
    (36, "d", [], [r"\text{E}"]),
    (36, "odd", [r"\text{odd}"], [r"\text{oddd}"]),
    (39, "4", [], [r"4\sqrt{2}", r"4\sqrt(2)"]),
    (40, "2", [], [r"\frac{1+\sqrt5}{2}"]),
    (40, r"1\sqrt{19}", [r"\sqrt{19}"], ["1"]),
    (40, "x+2n+1", ["1+x+2n"], ["x+1"]),
    (41, "n=2,3,4", ["2,3,4"], ["n=1,2,3"]),
    (41, "D=(0,1)", ["(0,1)"], ["D=(0,1.5)"]),
    (42, "19, 46, and 82", [r"19, 46, \text{ and } 82"], ["21, 36, and 82"]),
    (44, "1-1/e", [r"1-\frac1e"], ["1+1/e"]),
    (45, "1/2004!", [r"\frac{1}{2004!}"], ["1/2006!", "0", "0.000000"]),
    (45, "1/2^99", [r"\frac{1}{2^{99}}"], ["1/2^98", "0.0"]),
    (46, r"(2^{2005}+1)/(3\cdot 2^{2006})", [r"\frac{2^{2005}+1}{3\cdot2^{2006}}"], [r"1/(3\cdot 2^{2006})"]),
    (47, "3x-y+13=0", [r"y=3x+13"], ["3x+4y+14=0"]),
    (48, "f(x)=0", ["f(x)=0"], [r"\forall x>0, f(x)=0"]),
    (49, r"\sqrt{\frac1n}", [r"\frac{1}{\sqrt n}"], [r"\sqrt n"]),
    (50, "73", ["**73**"], ["234"]),
    (51, "1331 and 1728", ["1728, 1331"], ["1728", "1331"]),
    (52, r"\left(3,\frac{\pi}{2}\right)", [r"(3,\pi/2)"], ["3"]),
    (53, r"1,2,\ldots,n", [r"1, 2, \dots, n"], [r"1,3,5,\ldots,2n-1", r"1,3,\ldots,n"]),
    (53, r"1:2:3:\ldots", [], [r"1:4:9:\ldots"]),
    (54, r"\text{13}", ["13"], ["14"]),
    (55, r"\sqrt{67}, -\sqrt{85}", [r"-\sqrt{85}, \sqrt{67}"], [r"\sqrt{67}"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("gold", "answer", "want"),
    [
        pytest.param(gold, answer, want, id=f"{number}: {gold[:30]} {'is' if want else 'is not'} {answer[:30]}")
        for number, gold, right, wrong in CASES
        for answers, want in ((right, 1.0), (wrong, 0.0))
        for answer in answers
    ],
)
def test_a_boxed_answer_is_judged(gold, answer, want):
    verdict = maths()("", f"So it is \\boxed{{{answer}}}.", gold=gold)
    assert verdict.score == want, verdict


@pytest.mark.parametrize(
    ("gold", "answer", "params", "want"),
    [
        ("1/3", "0.333", {"places": 3}, 1.0),  # 8
        ("1/3", "0.333", {"places": 4}, 0.0),
        ("1/3", "0.333", {}, 0.0),
        ("(3/5, 8/3]", "(0.6,2.6667]", {"places": 2}, 1.0),  # 13
        ("(3/5, 8/3]", "(0.6,2.6667]", {}, 0.0),
        ("4.123105625617661", r"\sqrt{17}", {"places": 5}, 1.0),  # 43
        ("4.123105625617661", r"\sqrt{18}", {"places": 5}, 0.0),
        (r"10\%", "10", {}, 1.0),  # 10
        (r"10\%", "0.1", {}, 0.0),
        (r"10\%", "0.1", {"percent": "ratio"}, 1.0),
        (r"10\%", "10", {"percent": "ratio"}, 0.0),
        ("AB=4, CD=5", "4, 5", {"names": "kept"}, 0.0),  # 33
        ("AB=4, CD=5", "AB=4, CD=5", {"names": "kept"}, 1.0),
        ("f(x)", "f(y)", {}, 0.0),  # 38
        ("f(x)", "f(y)", {"names": "free"}, 1.0),
        ("x-y", "y-x", {"names": "free"}, 1.0),
    ],
)
def test_what_a_data_set_decides(gold, answer, params, want):
    verdict = maths(**params)("", f"\\boxed{{{answer}}}", gold=gold)
    assert verdict.score == want, verdict


@pytest.mark.parametrize(
    ("gold", "response", "want"),
    [
        ("11", "Of 204 tries... the first was 7, so \\boxed{011}", 1.0),  # 30
        ("004", "204 less 200 is \\boxed{004}", 1.0),
        ("4", "204 less 200 is \\boxed{004}", 1.0),
        (r"\{1,2\}", r"\boxed{1}\boxed{2}", 1.0),  # 31
        ("1, 2", r"\boxed{1} and \boxed{2}", 1.0),
        (r"\{1,2\}", r"\boxed{1} no no \boxed{2}", 0.0),
        ("2", r"\boxed{1} no no \boxed{2}", 0.0),
        ("9", "It is $9$", 1.0),  # 37
        ("9", "It is\n$ \n 9 \n $", 0.0),
    ],
)
def test_where_the_answer_stands(gold, response, want):
    verdict = maths()("", response, gold=gold)
    assert verdict.score == want, verdict
