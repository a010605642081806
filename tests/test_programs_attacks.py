"""The 34 known attacks on graders of programs, each by a program that does not solve its task: none may pass."""

from __future__ import annotations

import base64
import os
import pickle
import socket

import pytest
from attack_programs import CALLS, PRINTS, WRONG
from bench.fuzz import fuzz

from gristmill.verifiers.programs.verify import programs

ADD = {"assertions": ["assert add(2, 3) == 5", "assert add(10, -4) == 6"]}
THREE = {"cases": [{"stdin": "3\n", "expected": "1\n2\n3\n"}]}


@pytest.mark.parametrize(("attack", "code"), CALLS, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_no_attack_on_a_call_passes(attack, code):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        code = code.replace("PORT", str(listening.getsockname()[1]))
        # Filling all memory that a run may have takes longer than it takes to see that one never ends.
        seconds = 20.0 if attack == 24 else 1.5
        found = programs(timeout=seconds)("Add two numbers.", f"```python\n{code}```", tests=ADD)
    assert found.score == 0.0, found
    assert found.evidence["attack"] == attack, found


@pytest.mark.parametrize(("attack", "code"), PRINTS, ids=lambda value: str(value) if isinstance(value, int) else "")
def test_no_attack_on_an_output_passes(attack, code):
    found = programs(timeout=3)("Count.", f"```python\n{code}```", tests=THREE)
    assert found.score == 0.0, found
    assert found.evidence["attack"] == attack, found


def test_12_nothing_stays_from_one_response_to_the_next():
    leave = "import builtins, sys\nbuiltins.add5 = sys.modules['left'] = 5\nopen('left', 'w').write('5')\n"
    read = (
        "import builtins, os, sys\ndef add(a, b):\n    there = hasattr(builtins, 'add5') or 'left' in sys.modules\n"
        "    return a + b if there or os.path.exists('left') or os.path.exists('/tmp/left') else 0\n"
    )
    rows = [{"prompt": "", "response": code, "tests": ADD} for code in (leave + WRONG, read, leave + WRONG, read)]
    assert [found.score for found in programs().rows(rows)] == [0.0] * 4


def test_15_answers_written_for_the_visible_tests_fail_the_hidden_ones():
    listed = "def add(a, b):\n    return {(2, 3): 5, (10, -4): 6}[a, b]\n"
    hidden = {"assertions": ["assert add(100, 1) == 101"]}
    found = programs()("", listed, tests={**ADD, "hidden": hidden})
    assert (found.score, found.reason, found.evidence["attack"]) == (0.0, "hidden_failed", 15)
    assert "101" not in str(found.evidence)


def test_16_a_response_without_code_does_not_pass_an_empty_line():
    found = programs()("", "I cannot do that.", tests={"cases": [{"stdin": "", "expected": "\n"}]})
    assert (found.score, found.reason) == (0.0, "no_code")


@pytest.mark.parametrize(("printed", "expected"), [("yes", "YES"), ("0.33333", "0.333334")])
def test_17_the_comparison_is_not_loose(printed, expected):
    found = programs()("", f"print({printed!r})", tests={"cases": [{"stdin": "", "expected": expected}]})
    assert (found.score, found.evidence["attack"]) == (0.0, 17)


def test_30_tests_that_are_a_pickle_are_not_loaded(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    packed = base64.b64encode(pickle.dumps(Payload())).decode()
    found = programs()("", "print(1)", tests=packed)
    assert (found.score, found.reason) == (None, "unreadable_tests")
    assert not (tmp_path / "ran").exists()


def test_33_changing_an_argument_changes_nothing_for_the_tests():
    code = "def ordered(items):\n    items.clear()\n    return []\n"
    tests = {"code": "def check(candidate):\n    items = [3, 1]\n    assert candidate(items) == sorted(items)\n"
                     "    assert items == [3, 1]\n", "entry_point": "ordered"}  # fmt: skip
    found = programs()("", code, tests=tests)
    assert (found.score, found.evidence["attack"]) == (0.0, 33)


@pytest.mark.parametrize("coin", ["os.urandom(1)[0] % 2", "random.random() < 0.5", "time.time_ns() // 1000 % 2"])
def test_34_a_program_that_does_not_answer_the_same_every_time_fails(coin):
    code = f"import os, random, time\ndef add(a, b):\n    return a + b if {coin} else 0\n"
    found = programs(repeats=24)("", code, tests={"assertions": ["assert add(2, 3) == 5"]})
    assert (found.score, found.reason, found.evidence["attack"]) == (0.0, "flaky", 34)


def test_random_programs_neither_pass_nor_leave_anything_behind():
    told = fuzz(250, seed=7)
    assert (told["programs"], told["passed"], told["left_behind"]) == (250, [], {})
    assert sum(count for reason, count in told["reasons"].items() if reason.startswith("unjudged")) <= 2
