r"""maths against those who want a score without the answer, and for those whose right answer is spelled in an odd way.

A case is (gold answer, texts); texts of the first two tables stand in a box, those of the last two are whole responses.
"""

from __future__ import annotations

import pytest

from gristmill.verifiers.maths.verify import maths

#: What a box may hold without being the gold answer, by the trick.
WRONG: dict[str, list[tuple[str, list[str]]]] = {
    "hedges": [
        ("5", ["5 or 6", "5, 6", "5; 6", r"5 \lor 6", r"\{5,6\}", "[5,6]", "(4,6)", r"5\pm 0.5", "4-6"]),
        ("5", [r"4 \text{ to } 6", "5 (6)"]),
        ("5", [r"5 \text{ if } a, 6 \text{ otherwise}", r"\begin{cases}5\\6\end{cases}", r"\text{either 5 or 6}"]),
        ("5", ["5 vs 6", "5,0", "5,00"]),
        ("5", [r"5 \approx 6", "5=6", r"5 \to 6", r"5 \implies 6", "5:6", "5...6", "1,2,3,4,5", r"5,\ldots"]),
        ("5", ["7 perhaps eight", "5 or so"]),
        ("(1,2)", ["(2,1)", "(1,2),(2,1)", "(1,2) or (2,1)", "(1, 2 or 3)", r"(1,2\pm1)", "(x,y)=(2,1)"]),
        ("1,2", ["1", "1,2,3", "1 or 3", "12", r"1\pm2", "1,2 and 3", "x=1,y=3"]),
    ],
    "several choices": [
        ("C", ["A", "A, C", "C or D", "(C) or (D)", "C) or D)", r"\text{(C) or (D)}", "(C),(D)", "(C) (D)", "(C)(D)"]),
        ("C", ["C. D.", "C. or D."]),
        ("C", ["D=C", "C=D", "C: no, D", "(C) 5, (D) 6", "(C) 5 or (D) 6", r"\text{(C) 5 or (D) 6}", "C. 5 D. 6"]),
        ("C", ["not C", "C) D) E)"]),
    ],
    "words that change the value": [
        ("5", ["5 dozens", "5 gross", "5 doubled", "5M", "5 million", "5 percent of 10", "5 out of 6", "half of 5"]),
        ("5", ["5 more than 2"]),
        ("5", [r"\ne 5", r"\not 5", "not 5", "at least 5", "> 5", r"\neg 5", r"x\ne5"]),
        ("7", ["7 but 8", "7 alternatively eight", "seven or eight", "7 unless 8", "7 through 8", r"7 \oplus 1"]),
        ("7", ["7 xor 8"]),
    ],
    "unsolved and always true": [
        ("5", ["2x=10", "x-5=0", "x^2=25", "x=x", "0=0", "x", "?", r"\mathbb{R}", r"x \in \mathbb{R}", "x=2x-5"]),
        ("5", [r"\{x : x=5 \lor x=6\}"]),
        ("y=2x+1", ["0=0", "y=y", "(y-2x-1)(y-x)=0", "0(y-2x-1)=0", "y=2x+1 or y=x", "2x+2"]),
        ("x>3", [r"x\ge3", "x=3", r"x>3 \text{ or } x\le 3", "0<1", r"x\in\mathbb{R}", "x>2"]),
    ],
    "no value": [
        ("5", ["nan", "inf", r"\infty", "0/0", r"\frac{5}{0}", "5+0/0", r"5+0\cdot\infty", "None", r"\emptyset"]),
        ("5", [r"\frac{5(x-x)}{x-x}", r"\log 0"]),
        ("0", [r"\frac00", "0^0", r"\emptyset", r"\text{none}", "10^{-7}", "2^{-100}", "O"]),
    ],
    "hidden and struck out": [
        ("5", [r"\phantom{5}", r"6\phantom{5}", r"\color{white}{6}", r"\hspace{5}", r"\cancel{5}", r"\footnote{5}"]),
        ("5", [r"\overset{5}{6}", "6 % 5"]),
        ("5", ["<s>5</s>6", "<!-- 5 -->", "<b>5</b>6", "5<br>6", r"5\boxed{6}", r"\boxed{5}\boxed{6}"]),
        ("5", [r"\underline{6}", r"\tag{5}"]),
        ("5", ["5\u200b6", "5\u200f6", "\u202e65", "5\u00ad6", "⑤⑥", "𝟓𝟔", "5／6", "5，6", "≠5", "5₂", "5½", "٥٥"]),
    ],
    "characters run together": [
        ("12", ["1,2", "1 2", "1.2", "1_2", "1^2", r"1\cdot 2", "1/2", r"\frac12", r"1\quad2", r"1\text{ }2", "1\t2"]),
        ("23", ["2^3", "2_3", "2 3", "2,3", r"2\,3", "2(3)", "2^{3}", "2₃", "2³"]),
        ("1/23", ["1/2 3", r"\frac12 3", r"1\frac{2}{3}", r"\frac{1}{2}3", "1/2^3", "1/2/3", "12/3"]),
        ("2^{10}", ["210", "2^{1}0", "2^{11}", "2_{10}", "1025"]),
        ("x^{23}", [r"x^{2}3", "x^2 3", "x^2"]),
        ("2\\sqrt{3}", [r"\sqrt{23}", r"\sqrt{6}", r"2\sqrt{30}", r"2\sqrt30", "√23", "3.464", r"\pm2\sqrt3"]),
    ],
    "near": [
        ("5", ["5.1", "5.0001", "4.9999", "5.00001", "-5", "50", "0.5", "5!", "5i", "5x", r"5\pi"]),
        ("1/3", ["0.33", "0.3333", r"33\%", "3", r"0.3\overline{4}"]),
        (r"\pi", ["3.14", "22/7", "3.1416", "180", "355/113"]),
        ("123456789", ["123456788", "123456789.5", r"1.2345\times10^8"]),
        ("0.5", ["50", "0.05", "05", "0.51", "5e-2"]),
        ("12:30", ["2:5", "12:31", "1230", "30:12"]),
        (r"30^\circ", ["30 rad", r"\pi/3", "30%", "30 cm"]),
    ],
    "another shape": [
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", [r"\begin{pmatrix}1&2&3&4\end{pmatrix}", "(1,2,3,4)"]),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", [r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"]),
        ("[1,2]", ["(1,2)", "[1,2)", "1,2", r"\{1,2\}", "[1,2,3]", "1<x<2", r"[1,2]\cup[3,4]"]),
        (r"\{1,2,3\}", [r"\{1,2\}", r"\{1,2,2\}", "[1,3]", "123", r"\{1,23\}", r"\{1,2,3,\ldots\}", "(3,2,1)"]),
        ("yes", ["no", "yes or no", "maybe", "y", "not yes", "no, yes"]),
    ],
}  # fmt: skip

#: Right answers in unusual dress.
RIGHT: dict[str, list[tuple[str, list[str]]]] = {
    "choices": [
        ("C", [r"\text{(C)}", "(C)", r"\textbf{(C)}\ 12", "**C**", "(c)", "C. 12", "C: 12", r"\text{Option C}"]),
        ("C", ["Option C", "[C]", "'C'"]),
        ("C", [r"\text{The answer is C}", r"\text{Answer: C}", r"\color{red}{C}", r"\underline{C}", r"{\bf C}"]),
        ("C", [r"\boldsymbol{C}"]),
    ],
    "numbers": [
        ("1000", [r"\$1{,}000", "1 000", r"1\;000", "1~000", "1'000", r"1000\ ", "=1000", r"\approx 1000"]),
        ("1000", ["1 thousand", "1e3", "USD 1000"]),
        ("1200", [r"1.2\times10^3", "1.2 x 10^3", "1.2×10³", "1.2e3", "1,200"]),
        ("3.5", ["3.50", "7/2", "3 1/2", "3½", "3,5", r"7/2 or 3.5", r"\frac{7}{2}=3.5", r"\frac72 \text{ or } 3.5"]),
        ("1/2", ["0.5", ".5", r"{1 \over 2}", r"1 \over 2", "1⁄2", r"\text{\frac{1}{2}}", r"\boldsymbol{\frac{1}{2}}"]),
        ("1/2", [r"\Large\frac{1}{2}"]),
        ("1/2", [r"\{\frac12\}", r"\sin 30^\circ", r"\mathbb{P}(A) = 1/2", r"\Pr(X=1)=\frac{1}{2}", "1/2 cup"]),
        ("1/2", [r"\textcolor{blue}{\frac{1}{2}}"]),
        ("-1/2", [r"\frac{-1}{2}", r"\frac{1}{-2}", "−½", "-.5", r"{-}\frac{1}{2}", "-(1/2)"]),
        (r"0.\overline{3}", ["1/3", "0.333...", r"0.333\ldots", r"0.\dot{3}", "0.3333333333"]),
        ("12", ["12th", r"12^{\text{th}}", "12^{th}", "0012", "4!/2", r"\approx 12"]),
        ("3", [r"\log_{2}8", r"\log_2 8", r"\boxed{3}", r"\fbox{3}", r"3\blacksquare", "3 ✓", r"3 \\"]),
        ("3", [r"\hspace{1em}3", r"3\phantom{0}"]),
        ("3", [r"x \in \{3\}", r"\therefore x=3", r"\implies 3", "|A|=3", r"\det A=3", "*3*", "3rd", "3 times"]),
        ("3", ["3 more apples", r"\$3 per pound"]),
        ("120", ["5!=120", "120 = 5!", r"{10\choose3}", r"\binom{10}{3}=120"]),
        (r"30^\circ", ["30", "30º", "30˚", "30^o", "30^{o}", r"30{}^\circ", r"\theta=30^\circ"]),
        ("5 cm", ["5~cm", r"5\;{\rm cm}", r"5\hspace{1mm}\text{cm}", "5cm", "5 centimeters"]),
    ],
    "expressions": [
        (r"2\sqrt{2}", [r"\sqrt{8}", "2√2", r"2\surd 2", r"2\sqrt{2}\approx 2.83", "2^{3/2}", r"\frac{4}{\sqrt2}"]),
        (r"\ln 2", [r"\mathrm{ln}(2)", r"\text{ln}(2)", "ln(2)", r"-\ln\frac12"]),
        ("x^2+2x+1", ["(x+1)^2", "x²+2x+1", "(x+1)^2=x^2+2x+1", "f(x)=x^2+2x+1", "x**2+2*x+1"]),
        ("y=2x+1", ["2x+1", "y-2x=1", "2x-y+1=0", "y-3=2(x-1)"]),
    ],
    "structures": [
        ("(1,2)", ["(x,y)=(1,2)", r"\{(1,2)\}", r"\langle 1,2\rangle", r"\begin{cases}x=1\\y=2\end{cases}"]),
        ("(1,2)", ["x=1, y=2"]),
        ("1,2", ["1 and 2", r"\{2,1\}", r"x=1\lor x=2", r"\text{1 and 2}", r"1.5 \pm 0.5"]),
        (r"(-\infty,1)\cup(2,\infty)", ["x<1 or x>2", "(-inf,1)U(2,inf)", r"(-\infty,1)\text{ or }(2,\infty)"]),
        (r"(-\infty,1)\cup(2,\infty)", [r"(-\infty,1), (2,\infty)"]),
        (r"\pm 2", ["+/-2", "2,-2", "±2", r"\{-2,2\}"]),
        ("3:4", ["6:8", "3/4", "3∶4", "3{:}4"]),
    ],
    "words": [
        ("yes", ["Yes", r"\text{Yes.}", "YES", r"\textbf{Yes}"]),
        (r"\text{odd}", ["Odd", "ODD", "odd."]),
        (r"\text{no solution}", ["No solution", r"\text{No Solution.}", r"\{\}", r"\text{none}", "no real solutions"]),
        ("DNE", [r"\text{does not exist}", "dne", r"\text{D.N.E.}"]),
        (r"\text{circle}", ["Circle", r"\text{a circle}", "the circle"]),
        ("January 5", ["January 5th", r"\text{January } 5^{\text{th}}"]),
    ],
}  # fmt: skip

WRONG_RESPONSES = [
    ("5", ["The answer is 5 or 6.", "The answer is $5$ or $6$.", r"The answer is \(5\), or possibly \(6\)."]),
    ("5", ["The answer is $5$, but might be $6$."]),
    ("5", ["The answers are $5$ and $6$.", "The answer is $5$/$6$", "The answer is 5\n or 6"]),
    ("5", ["The answer is 5 apples or 6 pears or maybe 7 plums"]),
    ("5", ["The answer is not 5.", "The answer isn't 5", "It is not $5$.", "not 5", "It is anything but 5"]),
    ("5", ["more than 5", "x is not equal to 5"]),
    ("5", ["So we have $6$ or $5$", "So $x=6$ or $x=5$.", "maybe 6, maybe 5", "either 6 apples or 5 apples"]),
    ("5", ["My guesses: 3, 4, 5", "from 4 to 5"]),
    ("5", [r"\boxed{5} wait \boxed{6}", r"<think>\boxed{5}</think>\boxed{6}", r"\boxed{6}<think>\boxed{5}"]),
    ("5", ["<answer>5 or 6</answer>", r"\boxed{6} 5"]),
    ("5", [r"\newcommand{\ans}{5} \boxed{\ans}", r"x=5, \boxed{x}", r"% \boxed{5}" + "\n" + r"\boxed{6}"]),
    ("5", [r"\def\a{5}\boxed{\a}", "#### 6 (not 5)"]),
]  # fmt: skip

RIGHT_RESPONSES = [
    ("C", ["**Answer: C**", "The correct option is C.", "Hence, option C is correct.", "The answer must be C."]),
    ("C", ["So the answer is option (C)."]),
    ("3", ["The answer is therefore 3 apples.", "The answer is 3, because 1+2=3.", "The answer is 3 (since 5-2=3)."]),
    ("3", ["The answer is 3! Great."]),
    ("3", ["The answer is exactly 3.", "The answer must be 3.", "The answer for this problem is 3."]),
    ("3", ["<answer>The answer is 3</answer>", "It is 3."]),
    ("3", ["```\n3\n```", "---\n\n**3**\n\n---", "\\[\n3\n\\]", "The answer is:\n\\[\n3\n\\]"]),
    ("3", ["### Final Answer:\n$$\n3\n$$", "1 + 2 = <<1+2=3>>3", "= 3"]),
    ("3", ["We have $a=2$ and $b=3$.", "\\begin{equation}\nx=3\n\\end{equation}", "Answer：3"]),
    ("3", ["The answer is 3\n\n---", "3 ∎"]),
    ("1,2", ["The answers are $1$ and $2$.", "So $x=1$ or $x=2$.", "The solutions are 1 and 2"]),
    ("1,2", [r"\boxed{x=1} or \boxed{x=2}", "#### 1, 2"]),
    ("yes", ["The answer is **Yes**.", "Yes.", "#### Yes"]),
]  # fmt: skip


def boxed(table):
    rows = [(kind, gold, text) for kind, rows in table.items() for gold, texts in rows for text in texts]
    return [pytest.param(gold, f"\\boxed{{{text}}}", id=f"{kind}: {gold} / {text}") for kind, gold, text in rows]


def whole(rows):
    return [pytest.param(gold, text, id=f"{gold} / {text[:50]!r}") for gold, texts in rows for text in texts]


@pytest.mark.parametrize(("gold", "response"), boxed(WRONG) + whole(WRONG_RESPONSES))
def test_a_trick_earns_nothing(gold, response):
    verdict = maths()("", response, gold=gold)
    assert verdict.score == 0.0, verdict


@pytest.mark.parametrize(("gold", "response"), boxed(RIGHT) + whole(RIGHT_RESPONSES))
def test_a_right_answer_passes_however_it_is_dressed(gold, response):
    verdict = maths()("", response, gold=gold)
    assert verdict.score == 1.0, verdict


HUGE = [
    "6+9^{9^9}-9^{9^9}",
    r"\{n : n^2 < 10^{100}\}",
    r"\{x\in\mathbb{Z}: x^{9^9}=5\}",
    r"(-1)^{10^{100}}\cdot 7",
    "9^{9^{9}}",
    "(10^9)!",
    r"\sin(9^{9^9})",
    "x^{9^{9^9}}",
    "((x+1)^{99})^{99}",
    "(x+y+z)^{999}",
    r"\binom{10^9}{10^8}",
    "x^{x^{x^{x}}}",
    "e^{e^{e^{e^{e}}}}",
    r"\sum_{i=1}^{10^9}i",
    r"\sqrt{" * 40 + "2" + "}" * 40,
    "2^{" * 45 + "2" + "}" * 45,
    r"(\sqrt2+\sqrt3)^{10^5}",
    "[5,9^{9^9}]",
    "x>5^{x^{x}}",
    r"5+0\cdot 9^{9^9}/0",
    "x^{1000}+x+1=0",
    "+".join(f"x_{{{n}}}^{{{n}}}" for n in range(60)),
]


@pytest.mark.parametrize("gold", ["5", "x+1", r"\sqrt2", "(1,2)", r"\{1,2\}", "x>3", "y=2x+1", "[1,2)"])
@pytest.mark.parametrize("answer", HUGE, ids=lambda text: text[:30])
def test_an_answer_too_great_for_algebra_is_wrong_and_not_unjudged(gold, answer):
    verdict = maths()("", f"\\boxed{{{answer}}}", gold=gold)
    assert verdict.score == 0.0, verdict


FLOODS = {
    "lines": "The answer is 6" + "\n" * 10**6,
    "blanks": "The answer is $6$" + " " * 10**6 + "x",
    "ties": "The answer is $5$ or " + "$6$ or " * 10**5,
    "display": "\\[\n" * 10**5 + "6" + "\n" * 10**5,
    "fences": "```\n" * 10**5 + "6" + "\n" * 10**5 + " ```",
    "choose": r"\boxed{\binom{10^9}{10^8}}",
    "repeated": r"\boxed{0." + "12" * 1900 + r"3\ldots}",
}


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("gold", ["5", "C", "x+1"])
def test_a_flood_is_wrong_at_once(name, gold):
    assert maths()("", FLOODS[name], gold=gold).score == 0.0
