"""Templates by strangers: what is no template's business is refused, soon, with the template and the row named."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap

import pytest
from chatting import END, PLAIN, assistant, user

from gristmill.dataops.chat.render import Template, Unrenderable
from gristmill.dataops.dataset import InputError

TALK = [user("a" * 50), assistant("b" * 50)]
GROWING = (
    "{{% set ns = namespace(x={0}) %}}{{% for i in range(200) %}}{{% set ns.x = {1} %}}{{% endfor %}}{{{{ ns.x }}}}"
)
ENDLESS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "silent loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}{% endfor %}{% endfor %}",
    "product of a text": "{{ ('a' * 1000000) * 1000000 }}",
    "doubled by +": GROWING.format("'a'", "ns.x + ns.x"),
    "doubled by ~": GROWING.format("'a'", "ns.x ~ ns.x"),
    "doubled by replace": GROWING.format("'aa'", "ns.x.replace('a', 'aa')"),
    "doubled by the filter": GROWING.format("'aa'", "ns.x | replace('a', 'aa')"),
    "doubled by join": GROWING.format("'aa'", "[ns.x, ns.x] | join"),
    "doubled by a list": GROWING.format("['a']", "[ns.x, ns.x]"),
    "doubled by a dictionary": GROWING.format("['a']", "{'a': ns.x, 'b': ns.x}"),
    "doubled by dict()": GROWING.format("['a']", "dict(a=ns.x, b=ns.x)"),
    "doubled by a captured block": "{% set ns = namespace(x='a') %}{% for i in range(200) %}{% set y %}{{ ns.x }}"
    "{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "squared": GROWING.format("7", "ns.x * ns.x"),
    "calls in calls": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 40 + "x" + "{% endcall %}" * 40,
    "joined": "{{ ('a,' * 100000).split(',') | join('b' * 100000) }}",
    "copies": "{% set t = 'a' * 9000000 %}{% for i in range(99999) %}{% set u = t[1:] %}{% endfor %}",
    "a long template": "a" * 300_000,
}  # fmt: skip
FORBIDDEN = {
    "a class": "{{ ''.__class__.__mro__ }}",
    "a class by filter": "{{ ('' | attr('__class__')).__mro__ }}",
    "a class by name": "{{ ''['__class__']['__mro__'] }}",
    "the globals of a function": "{{ raise_exception.__globals__ }}",
    "the environment": "{{ range.__self__.x }}",
    "changing what it is given": "{{ messages.append(1) }}",
    "changing a dictionary": "{{ messages[0].update({'role': 'x'}) }}",
    "another template": "{% include 'x' %}",
    "an import": "{% import 'x' as y %}",
    "an address": "{{ range }}",
    "an address in a list": "{{ [namespace()] }}",
    "a power": "{{ 10 ** 10 }}",
    "a width": "{{ '%99999999d' % 1 }}",
    "a width by format": "{{ '{:>99999999}'.format('a') }}",
    "a width by filter": "{{ 'a' | center(99999999) }}",
    "an indent": "{{ 'a' | indent(99999999) }}",
    "an indent of JSON": "{{ messages | tojson(indent=99999999) }}",
    "chance": "{{ [1, 2] | random }}",
}
BROKEN = {
    "syntax": "{% if %}",
    "an open block": "{% generation %}{{ 'a' }}",
    "brackets": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
}


@pytest.mark.parametrize("name", [*ENDLESS, *FORBIDDEN, *BROKEN])
def test_a_hostile_template_is_refused(name):
    source = {**ENDLESS, **FORBIDDEN, **BROKEN}[name]
    with pytest.raises((InputError, Unrenderable)) as caught:
        Template(PLAIN + source, "hostile.jinja", {}, [END]).conversation(TALK, row="row 7")
    if caught.type is InputError:  # else the template fails on this row, by an error of Python's
        assert "chat template hostile.jinja" in str(caught.value)
    if name in ENDLESS and name != "a long template":
        assert "refused at row 7" in str(caught.value)


def test_refusing_takes_neither_memory_nor_time():
    """All of the above in one process of 4 GB and 60 processor seconds (they take 8)."""
    code = """
        import sys; sys.path.insert(0, "tests")
        from test_chat_hostile import *
        for source in {**ENDLESS, **FORBIDDEN, **BROKEN}.values():
            try:
                Template(PLAIN + source, "t", {}, [END]).conversation(TALK)
            except (InputError, Unrenderable):
                continue
            sys.exit(f"rendered: {source}")
    """

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, preexec_fn=limit)


@pytest.mark.parametrize("call", ["m()", "loop(messages)"])
def test_a_template_that_calls_itself_fails_on_its_row(call):
    source = "{% macro m() %}{{ m() }}{% endmacro %}" if call == "m()" else "{% for x in messages recursive %}"
    source += "{{ " + call + " }}" + ("" if call == "m()" else "{% endfor %}")
    with pytest.raises(Unrenderable, match="calls itself"):
        Template(source, "t", {}, [END]).conversation(TALK)


def test_what_a_long_conversation_needs_is_not_too_much():
    """The budget grows with what is given: a megabyte in a thousand turns renders."""
    talk = [turn for _ in range(500) for turn in (user("a" * 1000), assistant("b" * 1000))]
    found = Template(PLAIN, "t", {}, [END]).conversation(talk, loss="completion")
    assert len(found.text) > 1_000_000


def test_nothing_of_a_rendering_stays_for_the_next():
    source = (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}" + PLAIN
    )
    ours = Template(source, "t", {}, [END])
    first = ours.prompt(TALK).text
    with pytest.raises(InputError):
        Template(PLAIN + ENDLESS["loops"], "t", {}, [END]).conversation(TALK)
    assert ours.prompt(TALK).text == first


def test_a_message_of_nothing_but_special_tokens_takes_no_time():
    """A megabyte of them, twice over: each pass replaces all, so this takes a second and not an hour."""
    found = Template(PLAIN, "t", {}, [END, ">" + END]).prompt([user(f">{END}" * 100_000)])
    assert found.text.count(END) == 100_002 and found.safe.count(END) == 2
