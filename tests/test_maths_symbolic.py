"""Two mathematical texts: which say the same, which do not, and that the law holds for texts nobody chose."""

from __future__ import annotations

import itertools
import json
import re
from fractions import Fraction

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from realdata import real

from gristmill.verifiers.maths.algebra.bounds import TooLarge, check_tree
from gristmill.verifiers.maths.algebra.latex import LONGEST
from gristmill.verifiers.maths.algebra.phrases import parse
from gristmill.verifiers.maths.algebra.regions import complement, intersection, joined, pieces, same_pieces
from gristmill.verifiers.maths.algebra.statements import equal
from gristmill.verifiers.maths.algebra.symbolic import equivalent, outcome, readable
from gristmill.verifiers.maths.algebra.values import points

EQUAL = [
    (r"\frac13", r"\dfrac{1}{3}"),
    (r"\frac{1}{3}", "1/3"),
    (r"\frac{360}7", r"\cfrac{360}{7}"),
    (r"918\frac{1}{2}", "918.5"),
    (r"3 \frac{3}{8}", r"\frac{27}{8}"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    ("10{,}000", "10,000"),
    (r"0.\overline{3}", r"\frac13"),
    (r"\sqrt5", "sqrt(5)"),
    (r"4\sqrt{3}", "4√3"),
    (r"\frac{\sqrt3}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"\sqrt[3]{-8}", "-2"),
    (r"(-8)^{1/3}", "-2"),
    (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"),
    (r"\frac \pi4 + 2 - \sqrt2", "2+pi/4-2^(1/2)"),
    (r"x^2 - 2x + 1", "(x-1)**2"),
    (r"7x(x-1)(x-2)", "7x^3-21x^2+14x"),
    (r"\tan^2 y + 1", r"\sec^2 y"),
    (r"\sin 2x", r"2\sin x\cos x"),
    (r"\sin^{-1} 1", r"\frac{\pi}{2}"),
    ("0", r"\sin\pi"),
    (r"\sin^2 1 + \cos^2 1 - 1", "0"),
    ("1", r"(\pi\cdot 10^{200} + 1) - \pi\cdot 10^{200}"),
    (r"\cos 36^\circ", r"\frac{1+\sqrt5}{4}"),
    (r"\log_2 8", "3"),
    (r"\log 100", "2"),
    (r"\ln 8", r"3\log 2"),
    (r"\ln x^2", r"2\ln x"),
    (r"\sqrt{1/n}", r"1/\sqrt{n}"),
    (r"\sqrt{x}\sqrt{y}", r"\sqrt{xy}"),
    ("1,234.5", "1234.5"),
    ("1.5e-3", "0.0015"),
    ("y=2, x=1", "(1,2)"),
    ("x=1, y=2", "1, 2"),
    ("x=1, x=2", "2, 1"),
    ("AB=4, CD=5", r"\{4,5\}"),
    ("1<x<3", "x>1 and x<3"),
    ("[1,2,3]", "1, 2, 3"),
    (r"\left|x-3\right|", "|3-x|"),
    (r"\lfloor 3.7 \rfloor", "3"),
    (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"),
    (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"),
    ("5!", "120"),
    ("1000000!", r"1000000 \cdot 999999!"),
    (r"e^{i\pi}", "-1"),
    (r"\frac{7}{5} + \frac{1}{5} i.", "(7+i)/5"),
    (r"\frac{1}{i}", "-i"),
    ("f(2x)", "f(x+x)"),
    ("3 - 2f(x)", "-2f(x)+3"),
    (r"\gcd(12, 18)", "6"),
    ("1:2", "2:4"),
    ("7:32", "S:S'=7:32"),
    ("3:4", r"\frac{3}{4}"),
    (r"\{1\pm\sqrt{5},-2\}", r"\{-2, 1-\sqrt5, 1+\sqrt5\}"),
    (r"\pm 2021", r"\{-2021, 2021\}"),
    ("9,-7", "-7 and 9"),
    (r"7, -2, \text{ and } -5", "-5,-2,7"),
    (r"\{1,1,2\}", r"\{2,1\}"),
    ("(1,3)", r"\{1,3\}"),
    ("(1, 4\\sqrt3)", "1, 4√3"),
    (r"(1,2),(3,4)", r"(3,4),(1,2)"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{bmatrix}1\\3\end{bmatrix}"),
    (
        r"\begin{pmatrix} 1/2 & 2 \\ -3 & 5 \end{pmatrix}",
        r"\left[\begin{array}{cc} 0.5 & 1+1 \\ -3 & 5\end{array}\right]",
    ),
    (r"\begin{pmatrix} 2 & 0 \\ -3 & 5 \end{pmatrix}", "[[2,0],[-3,5]]"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", "(1,3)"),
    ("34x+45y-20z+100=0", "-34x-45y+20z-100=0"),
    (r"\frac{x^2}{4}+\frac{y^2}{3}=1", r"\frac{x^2}{16}+\frac{y^2}{12}=\frac14"),
    ("2x+4y-3=0", r"y=-\frac x2+\frac34"),
    ("x<1", "-x>-1"),
    ("1<x<2", "2>x>1"),
    ("|x|<2", "-2<x<2"),
    ("11", "x=11"),
    ("x=11", "11"),
    ("2x+3", "y=2x+3"),
    ("1/3", r"x=1/3\approx1.3"),
    ("x=3", "x=6/2=3"),
    ("f(x)=x^2+1", "f(x)=1+x^2"),
    (r"-2\le x\le 7", r"x\in[-2,7]"),
    (r"x \in [-2,7]", "[-2,7]"),
    (r"1\le|z|\le 3/2", r"[-3/2,-1]\cup[1,3/2]"),
    (r"x<-2 \text{ or } x>2", r"(-\infty,-2)\cup(2,\infty)"),
    (r"x\ne 2", r"\mathbb{R}\setminus\{2\}"),
    (r"(-\infty, -7)\cup(-7, 3)\cup(3, \infty)", r"(3,∞)∪(-∞,-7)∪(-7,3)"),
    (r"[0,1]\cup[1,2]", "[0,2]"),
    (r"\left(\frac{3}{5},\frac{8}{3}\right]", "(0.6, 8/3]"),
    (r"\{x \mid x>1\}", r"(1,\infty)"),
    (r"\emptyset", r"\{\}"),
    ("(-a,0)", "(0-a, 0)"),
    ("204_5", "204_{5}"),
    (r"\infty", r"+\infty"),
    (r"x\equiv 3\pmod 7", r"x \equiv 3 \pmod{7}"),
    (r"f(2) < f(1) < f(4)", "f(4)>f(1)>f(2)"),
]

DIFFERENT = [
    (r"1-\frac1e", r"1+\frac1e"),
    (r"\frac{1}{2004!}", r"\frac{1}{2006!}"),
    (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
    (r"\frac{2^{2005}+1}{3\cdot 2^{2006}}", r"\frac{1}{3\cdot 2^{2006}}"),
    (r"\sqrt2", r"\sqrt2+10^{-100}"),
    (r"\pi", r"\frac{\ln(640320^3+744)}{\sqrt{163}}"),  # the same to 30 digits
    ("7", r"\sqrt{2}^{\sqrt{2}}+10^{-2000}"),
    ("0", r"\ln(1+10^{-100})"),
    ("1000000!", "1000001!"),
    (r"x^{10^9}", r"x^{10^9}+1"),
    ("9^{9^9}", "5"),
    ("4", r"4\sqrt{2}"),
    ("4", r"4\sqrt(2)"),
    ("2", r"\frac{1+\sqrt5}{2}"),
    ("1√19", "1"),
    ("x+2n+1", "x+1"),
    ("x", r"\sqrt{x^2}"),
    ("x", "y"),
    ("y=1, x=2", "(1,2)"),
    ("x=1, y=2", "2, 1"),
    ("x=1, y=2", "x=2, y=1"),
    (r"\{1,2\}", ",".join(map(str, range(1, 1_000)))),
    (r"f(x)=0", r"f(x)=1"),
    (r"\arctan x + \arctan\frac1x", r"\frac\pi2"),
    ("f(x)", "f(y)"),
    ("f(x)", "g(x)"),
    (r"\sin x", r"\sin y"),
    ("-1", "1"),
    ("i", "-i"),
    ("0", r"\sin 3"),
    ("3x-y+13=0", "3x+4y+14=0"),
    ("2x+z=1", "1"),
    ("x=3", "2x=6"),
    ("x=3", "y=3"),
    ("11", "11=12=11"),
    ("4", "x=1=4"),
    ("x<1", "x>-1"),
    ("x<1", r"x\le 1"),
    (r"x\in[-2,7]", r"-2\le x\le 7"),
    (r"-2\le x\le 7", r"x\in[-2,7)"),
    ("[0,1)", "(0,1)"),
    ("[0,1)", "[0,9)"),
    ("(0,1)", "[0,1]"),
    ("(3,1)", r"\{1,3\}"),
    ("(3,1)", "(1,3)"),
    (r"\pm 2021", "2021"),
    (r"\sqrt{67}, -\sqrt{85}", r"\sqrt{67}"),
    ("1331 and 1728", "1728"),
    (r"\left(3,\frac{\pi}{2}\right)", "3"),
    ("32349", "32, 349"),
    ("19, 46, and 82", "21, 46, and 82"),
    ("1,1,2", "1,2,2"),
    ("(1,2),(3,4)", "(1,2),(3,4,5)"),
    (r"1,2,\ldots,n", r"1,3,5,\ldots,2n-1"),
    (r"1:2:3:\ldots", r"1:4:9:\ldots"),
    ("12:00", "1:00"),
    ("n=2,3,4", "n=1,2,3"),
    ("D=(0,1)", "D=(0,1.5)"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 5 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \end{pmatrix}"),
    ("1112112_3", r"2012_3 \cdot 201_3"),
    ("204_5", "54"),
    ("54", "204_5"),
    ("101_2", "101_3"),
    (r"\infty", r"-\infty"),
    (r"\infty", "7"),
    (r"\frac{9\pi}{2}", r"\frac{9\pi}{2}+1"),
]

UNREADABLE = ["", " ", "odd", r"\text{odd}", r"45\text{ mph}", r"\$5", r"28\%", "1 2", "x2", "5!!", "(1,2", "1,2)",
              "{", "}", r"\frac{1}", r"\sqrt", "x^", "2+", r"\begin{pmatrix}1\\2&3\end{pmatrix}", r"\int_0^1 x", "((",
              "|x", "\\", "$$", "__import__('os')", "a+;b", r"\forall x", "\ud800", "\x00"]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_what_says_the_same_is_equal(gold, answer):
    assert outcome(gold, answer) == "equal"


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_what_says_something_else_is_different(gold, answer):
    assert outcome(gold, answer) == "different"


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_is_no_mathematics_is_refused(text):
    assert not readable(text)
    assert equivalent("1", text) is None and equivalent(text, "1") is None


@pytest.mark.parametrize(("gold", "answer"), EQUAL + DIFFERENT)
def test_a_text_equals_itself(gold, answer):
    assert equivalent(gold, gold) is True
    assert equivalent(answer, answer) is True


#: Golds that are read in one direction only, by the policies of statements.py.
DIRECTED = {r"-2\le x\le 7", r"1\le|z|\le 3/2", r"x\ne 2", "|x|<2", r"x<-2 \text{ or } x>2"}


@pytest.mark.parametrize(("gold", "answer"), [pair for pair in EQUAL if pair[0] not in DIRECTED])
def test_equality_is_symmetric(gold, answer):
    assert equivalent(answer, gold) is True


def test_no_answer_can_be_made_to_fit_points_known_beforehand():
    """x plus something that is zero at all points that a comparison with plain x would have used."""
    known = [*itertools.islice(points(["x"]), 8), *itertools.islice(points(["x"], (("sym", "x"), ("sym", "x"))), 8)]
    fitted = "x+" + "".join(f"(x-({point['x']}))" for point in known)
    assert outcome("x", fitted) == "different"


def test_only_the_side_without_a_value_is_named():
    tower = "9^{9^{9^{9}}}"
    assert (outcome("5", tower), outcome(tower, "5")) == ("answer_too_large", "gold_too_large")
    assert (outcome("5", "1/0"), outcome("1/0", "5")) == ("answer_undefined", "gold_undefined")
    assert not readable(tower) and not readable("1/0") and readable(r"1 \pm \sqrt{19}")
    assert outcome("7", "7" * (LONGEST + 1)) == "answer_too_large"


def _spelt(tree, latex):
    """A random expression in one of two spellings."""
    kind, *inner = tree
    if kind == "n":
        return f"{{{inner[0]}}}" if latex else str(inner[0])
    if kind == "x":
        return inner[0] if latex else inner[0].replace("\\pi", "π")
    if kind == "f":
        name, body = inner[0], _spelt(inner[1], latex)
        if name == "sqrt":
            return rf"\sqrt{{{body}}}" if latex else f"({body})^(1/2)"
        return rf"\{name}\left({body}\right)" if latex else f"{name}({body})"
    left, right = (_spelt(part, latex) for part in inner)
    if kind == "+":
        return rf"\left({left}+{right}\right)" if latex else f"({right} + {left})"
    if kind == "-":
        return rf"\left({left}-\left({right}\right)\right)" if latex else f"(-({right}) + ({left}))"
    if kind == "*":
        return rf"\left({left}\right)\cdot\left({right}\right)" if latex else f"(({right})*({left}))"
    if kind == "/":
        return rf"\frac{{{left}}}{{{right}}}" if latex else f"(({left})/({right}))"
    return rf"\left({left}\right)^{{{inner[1][1]}}}" if latex else f"({left})**{inner[1][1]}"


_LEAVES = st.one_of(
    st.tuples(st.just("n"), st.integers(1, 40)), st.tuples(st.just("x"), st.sampled_from(["x", "y", r"\pi"]))
)


def _grown(inner):
    return st.one_of(
        st.tuples(st.sampled_from("+-*/"), inner, inner),
        st.tuples(st.just("^"), inner, st.tuples(st.just("n"), st.integers(2, 4))),
        st.tuples(st.just("f"), st.sampled_from(["sqrt", "sin", "cos"]), inner),
    )


@given(st.recursive(_LEAVES, _grown, max_leaves=8))
@settings(max_examples=200, deadline=None)
def test_two_spellings_of_one_expression_are_equal_and_a_perturbed_one_is_not(tree):
    latex, plain = _spelt(tree, True), _spelt(tree, False)
    found = outcome(latex, plain)
    event(found)
    assert found == "equal" or not readable(latex) or found == "undecided"
    if readable(latex) and found == "equal":
        assert outcome(latex, f"{plain} + 10^{{-30}}") in ("different", "undecided")
        assert outcome(plain, f"{latex} + x") in ("different", "undecided")


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_equal_when_they_are(a, b):
    def spelt(value):
        sign = "-" if value < 0 else ""
        return rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"

    assert equivalent(spelt(a), str(a)) is True
    assert equivalent(spelt(a), str(b)) is (a == b)


@given(st.text(alphabet=r"\{}()[]|^_+-*/=<>,.!1290xyife $&%", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_and_what_is_read_equals_itself(text):
    found = outcome(text, text)
    assert found == "equal" or found.startswith(("gold", "undecided"))
    assert found == "equal" or not readable(text) or found == "undecided"


_ENDS = st.lists(
    st.tuples(st.integers(-9, 9), st.integers(0, 5), st.sampled_from(["()", "[]", "(]", "[)"])), max_size=4
)


@given(_ENDS, _ENDS)
def test_sets_of_the_line_keep_the_laws_of_sets(first, second):
    def region(ends):
        named = (
            pieces(("group", marks, ("num", Fraction(low)), ("num", Fraction(low + size)))) for low, size, marks in ends
        )
        return joined(tuple(piece for part in named for piece in part))

    a, b = region(first), region(second)
    assert same_pieces(complement(complement(a)), a)
    assert same_pieces(intersection(a, b), complement(joined(complement(a) + complement(b))))
    assert same_pieces(joined(a + b), joined(b + a))
    assert intersection(a, complement(a)) == ()


def test_a_tree_past_the_bounds_is_refused_before_anything_is_computed():
    with pytest.raises(TooLarge):
        check_tree(parse("1" + "/2" * 1_000))
    with pytest.raises(TooLarge):
        equal(parse("9^{9^{9^9}}"), parse("2"))


def _boxed(solution):
    opening = solution.index("{", max(solution.rfind("\\boxed"), solution.rfind("\\fbox")))
    depth = 0
    for place in range(opening, len(solution)):
        depth += (solution[place] == "{") - (solution[place] == "}")
        if depth == 0:
            return solution[opening + 1 : place]
    raise AssertionError(solution)


def test_every_mathematical_gold_of_math_is_read_and_equals_itself():
    """The 141 others are words, or have units, money or percentages in them: the business of the stages before."""
    golds = [_boxed(json.loads(row)["solution"]) for row in real("verify/math-test.jsonl").read_text().splitlines()]
    worded = re.compile(r"\\(?:text|mbox)\s*\{(?!\s*and\b)[^{}]{2,}\}|\\\$|\\%")
    refused = [gold for gold in golds if equivalent(gold, gold) is not True]
    assert len(golds) == 5_000 and len(refused) == 141
    assert [gold for gold in refused if not worded.search(gold)] == []
