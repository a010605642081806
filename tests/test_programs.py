"""Laws of the verifier of programs: what passes, what fails, what is not judged, and what each shape of tests means."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.dataops.dataset import InputError
from gristmill.verifiers.programs.compare import equal, same_output
from gristmill.verifiers.programs.extract import code_of
from gristmill.verifiers.programs.verify import LIMITS, guest, programs
from gristmill.verifiers.programs.wire import Malformed, decode, dumps, encode, loads
from gristmill.verifiers.sandbox.pool import Sandbox
from gristmill.verifiers.verdict import Verdict

ADD = "def add(a, b):\n    return a + b\n"
CHECK = {"code": "def check(candidate):\n    assert candidate(2, 3) == 5\n", "entry_point": "add"}
STUB = "import math\n\ndef twice(x):\n    return 2 * x\n\ndef area(r: float) -> float:\n    '''Area of a circle.'''\n"
AREA = {"code": "def check(candidate):\n    assert candidate(twice(1)) == math.pi * 4\n", "entry_point": "area"}


def verdict(code: str, tests: object, prompt: str = "", **params: object) -> Verdict:
    return programs(**params)(prompt, code, tests=tests)


@pytest.mark.parametrize(
    ("tests", "right", "wrong"),
    [
        (CHECK, ADD, "def add(a, b):\n    return a - b"),
        (json.dumps(CHECK), ADD, "def add(a, b):\n    return 6"),
        ({"assertions": ["assert add(1, 2) == 3", "assert add(3, 1) == 4"]}, ADD, "def add(a, b):\n    return 3"),
        ({"assertions": ["assert sum(10, 15) == 6"]}, "def sum(a, b):\n    return 6", "def sum(a, b):\n    return 7"),
        ({"cases": [{"args": [1, 2], "expected": 3}], "entry_point": "add"}, ADD, "def add(a, b):\n    return True"),
        ({"cases": [{"args": [1, 2], "expected": 3}]}, ADD, "x = 1"),
        ({"cases": [{"stdin": "2 3", "expected": "5\n"}]}, "print(sum(map(int, input().split())))", "print(4)"),
        (
            {"inputs": ["[1, 2]\n3", "[]\n0"], "outputs": ["[1, 2, 3]", "[0]"], "fn_name": "put"},
            "class Solution:\n    def put(self, xs: List[int], x: int) -> List[int]:\n        return xs + [x]",
            "class Solution:\n    def put(self, xs, x):\n        return xs",
        ),
        ({"inputs": [[[3]]], "outputs": [[9]], "fn_name": "f"}, "def f(x):\n    return x[0] ** 2", "def f(x): 1"),
        ({"inputs": ["4\n"], "outputs": ["2\n"]}, "print(int(int(input()) ** 0.5))", "print(3)"),
    ],
)  # fmt: skip
def test_each_shape_passes_the_right_and_fails_the_wrong(tests, right, wrong):
    assert verdict(right, tests).score == 1.0
    assert verdict(wrong, tests).score == 0.0


@pytest.mark.parametrize(
    "response",
    [
        "    return math.pi * r ** 2\n",
        "return math.pi * r ** 2",
        "```python\n    return math.pi * r ** 2\n```",
        "Think.\n```python\nwrong(\n```\nNow right:\n```python\ndef area(r):\n    return math.pi * r ** 2\n```\nDone.",
        "def area(r: float) -> float:\n    return math.pi * r * r",
        "- so:\n  ```py\n  def area(r):\n      return math.pi * r * r\n  ```",
    ],
)
def test_a_completion_goes_on_with_the_prompt_and_a_program_stands_alone(response):
    assert verdict(response, AREA, STUB).score == 1.0


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "no_code"),
        ("I do not know, sorry.", "no_code"),
        ("```\n```", "no_code"),
        ("```python\ndef add(a, b\n```", "no_code"),
        ("```cpp\nint main() {}\n```", "no_code"),
        ("(" * 100_000, "no_code"),
        ("x = 1", "no_entry_point"),
        ("import nowhere_to_be_found", "failed_to_load"),
        ("def add(a, b):\n    raise KeyError(a)", "failed"),
        ("def add(a, b):\n    return add(a, b)", "failed"),
        ("while True: pass", "timeout"),
    ],
)
def test_a_response_that_cannot_pass_scores_0_with_its_reason(response, reason):
    found = verdict(response, CHECK, timeout=1)
    assert (found.score, found.reason) == (0.0, reason)


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("not json", "unreadable_tests"),
        ([], "unreadable_tests"),
        ({"cases": [{"stdin": "1"}]}, "unreadable_tests"),
        ({"cases": []}, "unreadable_tests"),
        ({"inputs": ["1"], "outputs": []}, "unreadable_tests"),
        ({"assertions": ["assert add(1, 2) = 3"]}, "broken_tests"),
        ({"assertions": ["add(1, 2)"]}, "broken_tests"),
        ({"assertions": ["assert add(1, object()) == 3"]}, "broken_tests"),
        ({"code": "import nowhere\ndef check(f):\n    assert f(1, 2) == 3", "entry_point": "add"}, "broken_tests"),
        ({"code": "def check(f):\n    f(1, 2)", "entry_point": "add"}, "broken_tests"),
        ({"code": "def check(f):\n    while True: pass\n    assert f(1, 2)", "entry_point": "add"}, "broken_tests"),
        ({"code": "def check(f):\n    for i in (): assert f(i, i)", "entry_point": "add"}, "broken_tests"),
    ],
)
def test_tests_that_cannot_judge_are_not_judged(tests, reason):
    found = verdict(ADD, tests, timeout=1)
    assert (found.score, found.reason) == (None, reason)


def test_every_test_counts_and_is_told():
    tests = {"assertions": ["assert add(1, 1) == 2", "assert add(2, 2) == 5", "assert add(3, 3) == 6"]}
    found = verdict(ADD, tests)
    assert (found.score, found.evidence["passed"], found.evidence["of"]) == (0.0, 2, 3)
    assert [test["passed"] for test in found.evidence["tests"]] == [True, False, True]
    assert found.evidence["tests"][1]["got"] == "4"
    assert verdict(ADD, tests, partial=True).score == pytest.approx(2 / 3)


def test_hidden_tests_count_and_are_not_shown():
    hidden = {"cases": [{"args": [7, 8], "expected": 15}], "entry_point": "add"}
    assert verdict(ADD, {**CHECK, "hidden": hidden}).score == 1.0
    found = verdict("def add(a, b):\n    return 5", {**CHECK, "hidden": hidden})
    assert (found.score, found.reason, found.evidence["hidden"]) == (0.0, "hidden_failed", "failed")
    assert "15" not in json.dumps(dict(found.evidence)["tests"])


def test_a_wrong_assertion_in_a_try_does_not_pass_and_an_expected_error_does():
    code = "def check(f):\n    try:\n        f(-1)\n        assert False\n    except ValueError:\n        pass\n"
    tests = {"code": code + "    assert f(4) == 2", "entry_point": "root"}
    root = "def root(x):\n    if x < 0:\n        raise {}\n    return int(x ** 0.5)"
    assert verdict(root.format("ValueError('negative')"), tests).score == 1.0
    assert verdict(root.format("KeyError(x)"), tests).score == 0.0
    assert verdict("def root(x):\n    return 2", tests).score == 0.0


def test_objects_of_the_programs_classes_stay_with_it_and_can_be_used():
    code = (
        "class Stack:\n    def __init__(self):\n        self.items = []\n    def push(self, x):\n"
        "        self.items.append(x)\n        return self\n    def pop(self):\n        if not self.items:\n"
        "            raise Empty('empty')\n        return self.items.pop()\n    def __len__(self):\n"
        "        return len(self.items)\nclass Empty(LookupError):\n    pass\n"
        "def depth(stack):\n    return len(stack.items)\n"
    )
    setup = "s = Stack()\ns.push(1)\ns.push((2, 3))\nt = Stack()\nt.items = [5]"
    tests = [
        "assert depth(s) == 2", "assert s.pop() == (2, 3)", "assert len(s) == 1 and s.items == [1]",
        "assert t.pop() == 5 and t is not s", "assert s == s and s != t",
        "try:\n    t.pop()\n    assert False\nexcept Empty as error:\n    assert isinstance(error, LookupError)",
    ]  # fmt: skip
    assert verdict(code, {"assertions": tests, "setup": setup}).score == 1.0
    assert verdict(code.replace("pop()\n", "pop(0)\n"), {"assertions": tests, "setup": setup}).score == 0.0


@pytest.mark.parametrize(
    "posing",
    ["issubset", "__contains__", "__sub__", "__lt__", "startswith", "__len__", "index", "__getitem__", "__hash__"],
)
def test_an_object_cannot_pose_as_a_plain_value(posing):
    code = f"class Pose:\n    def {posing}(self, *rest):\n        return 0 if {posing!r} != 'issubset' else True\n"
    code += "    __abs__ = __radd__ = __sub__ = lambda self, *rest: 0\ndef f(x):\n    return Pose()\n"
    tests = [
        "assert f(1).issubset({1, 2})", "assert 3 in f(1)", "assert abs(f(1) - 3.5) < 1e-6", "assert f(1) < 4",
        "assert f(1).startswith('a')", "assert len(f(1)) == 0", "assert f(1).index(3) == 0", "assert f(1)[3] == 0",
        "assert {f(1): 1}[3]",
    ]  # fmt: skip
    found = verdict(code, {"assertions": tests}, partial=True, timeout=1)
    assert (found.score, found.evidence["passed"]) == (0.0, 0)


def test_iterators_and_closures_can_be_asked():
    code = "def count(n):\n    yield from range(n)\ndef adder(n):\n    return lambda x: x + n\n"
    code += "def keys(d):\n    return d.keys()\n"
    tests = ["assert list(count(3)) == [0, 1, 2]", "assert adder(2)(3) == 5", "assert keys({1: 2}) == {1}"]
    assert verdict(code, {"assertions": tests}).score == 1.0
    assert verdict(code, {"assertions": ["assert count(3) == [0, 1, 2]"]}).score == 0.0  # as in Python


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.decimals(allow_nan=False) | st.fractions() | st.complex_numbers(allow_nan=False) | st.dates()
    | st.timedeltas(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner)
    | st.sets(st.integers() | st.text()) | st.lists(inner).map(deque)
    | st.dictionaries(st.text(), inner).map(OrderedDict),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200)
@given(PLAIN)
def test_plain_data_comes_back_equal_and_of_the_same_type(value):
    back = decode(loads(dumps(encode(value, lambda other: ["h", 0]))), lambda handle: None)
    assert type(back) is type(value)
    assert back == value


def test_standard_containers_keep_their_type():
    for value in (
        Counter("aab"),
        defaultdict(int, a=1),
        Fraction(1, 3),
        Decimal("1.10"),
        10**400,
        range(3),
        b"\xff",
        -0.0,
    ):
        back = decode(loads(dumps(encode(value, lambda other: ["h", 0]))), lambda handle: None)
        assert (type(back), repr(back).replace("None", "<class 'int'>")) == (type(value), repr(value))


@pytest.mark.parametrize(
    "frame",
    [b"[", b"{}", b'["zz"]', b"[]", b'["d",1]', b'["s",["l"]]', b'["Fr","1","0"]', b'["y","eval"]', b"[" * 100_000],
)  # fmt: skip
def test_frames_that_nobody_honest_sends_are_refused(frame):
    with pytest.raises(Malformed):
        decode(loads(frame), lambda handle: None)


def test_chosen_hashes_do_not_hang_the_reader():
    with pytest.raises(Malformed):
        decode(["s", *[["i", hex(n * (2**61 - 1))] for n in range(1, 20_000)]], lambda handle: None)


@pytest.mark.parametrize(
    ("got", "want", "same"),
    [
        (1, 1, True), (True, 1, False), (1, True, False), (1.0, 1, False), (1, 1.0, True), (True, 1.0, False),
        (0.3, 0.1 + 0.2, False),
        ((1,), [1], False), ([1, 2], [1], False), ({"a": 1}, {"a": 1}, True), ({1: 1}, {True: 1}, False),
        (float("nan"), float("nan"), True),
        ({1, 2}, {2, 1}, True), ({1}, {True}, False), ("a", "A", False), (None, 0, False),
        (Counter("a"), {"a": 1}, True),
    ],
)  # fmt: skip
def test_values_are_compared_by_exact_types(got, want, same):
    assert equal(got, want) is same


@pytest.mark.parametrize(
    ("got", "want", "same"),
    [
        ("1\n2\n\n", "1\n2", True), ("1 \r\n2", "1\n2", True), ("1", "1\n2", False), ("1\n2\n3", "1\n2", False),
        (" 1", "1", False),
        ("\n1", "1", False), ("1\x0b", "1", False), ("1\xa0", "1", False), ("1.0", "1", False), ("", "\n", True),
        ("YES", "yes", False),
    ],
)  # fmt: skip
def test_outputs_are_compared_whole_and_line_by_line(got, want, same):
    assert same_output(got, want) is same


def test_tolerance_is_for_numbers_alone():
    assert same_output("a 0.3333333", "a 0.33333334", 1e-6)
    assert not same_output("nan", "0.1", 1.0)
    assert not same_output("b 0.3333333", "a 0.33333334", 1e-6)
    assert equal([0.1 + 0.2], [0.3], 1e-9)


def test_the_last_python_block_is_the_code():
    assert code_of("```python\na\n```\n```python\nb\n```\n```sh\nc\n```") == "b\n"
    assert code_of("```python\ncut off") == "cut off\n"
    assert code_of("````python\n```\n````") == "```\n"
    assert code_of("```cpp\nx\n```", ()) == "x\n"


def test_other_languages_are_command_lines():
    shell = {"file": "main.sh", "run": ["/bin/sh", "main.sh"]}
    copied = {**shell, "compile": ["/bin/cp", "main.sh", "made"], "run": ["/bin/sh", "made"]}
    tests = {"cases": [{"stdin": "2\n3\n", "expected": "5"}, {"stdin": "1\n1\n", "expected": "2"}]}
    add = "```sh\nread a; read b; echo $((a + b))\n```"
    for language in (shell, copied):
        assert verdict(add, tests, language=language).score == 1.0
        assert verdict("echo 5", tests, language=language).score == 0.0
    assert verdict(add, tests, language={**shell, "compile": ["/bin/false"]}).reason == "not_compiled"
    for language in ("cobol", {"file": "x"}):
        with pytest.raises(InputError):
            verdict(add, tests, language=language)


def test_many_callers_at_once_get_their_own_verdicts():
    wanted = [{"assertions": [f"assert f() == {n - n % 3}"]} for n in range(24)]
    rows = [{"prompt": "", "response": f"def f():\n    return {n}", "tests": wanted[n]} for n in range(24)]
    found: dict[int, list[float | None]] = {}

    def call(caller: int) -> None:
        found[caller] = [one.score for one in programs().rows(rows)]

    callers = [threading.Thread(target=call, args=(n,)) for n in range(8)]
    [thread.start() for thread in callers]
    [thread.join(120) for thread in callers]
    assert found == {n: [float(m % 3 == 0) for m in range(24)] for n in range(8)}


def test_a_killed_zygote_loses_no_verdict():
    slow = "import time\ndef add(a, b):\n    time.sleep(0.7)\n    return a + b\n"
    before = _children()
    with Sandbox(guest(), limits=LIMITS) as box:
        verify = programs(sandbox_context=box)
        assert verify("", ADD, tests=CHECK).score == 1.0
        found: list[Verdict] = []
        caller = threading.Thread(target=lambda: found.append(verify("", slow, tests=CHECK)))
        caller.start()
        time.sleep(0.4)
        zygotes = _children() - before
        assert zygotes
        [os.kill(pid, signal.SIGKILL) for pid in zygotes]
        caller.join(60)
    assert [one.score for one in found] == [1.0]


def _children() -> set[int]:
    return {int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()}
