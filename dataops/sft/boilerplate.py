"""Answers that should not be learned for what they say of themselves, or because they were cut off.

Refusals are a verifier's to find ("safety.refusal", by "verify", then `scores.judged`): it tells a refusal from a story
about one. Here are four narrower things, each by a pattern whose match is the evidence:

    as_an_ai           "As an AI language model, I ...", "I'm only a chatbot and have no ..."
    knowledge_cutoff   "as of my last update", "my training data only goes up to"
    unfilled           a slot of a template left in an answer: {{name}}
    open_code          a code fence that nothing closes
    breaks_off         a last answer that ends with a comma or "and the"; or, with whole sentences before, in the middle
                       of a line of eight words or more, a small word and no mark of punctuation last

The law: a row goes for the first of these, in this order, that one of the assistant's turns has, with the words; code
between fences, and what stands in quotation marks, is nobody speaking, and is looked at by `open_code` alone.

Not covered: languages other than English (`unfilled` and `open_code` hold in all); a model's own name, which is wanted
in one set and a leak in another; an answer that breaks off behind a whole sentence.
"""

from __future__ import annotations

import polars as pl

from gristmill.dataops.op import Split, ledger, op
from gristmill.dataops.sft.turns import answers

_MACHINE = (
    r"(?:a\.?i\.?|artificial intelligence|language model|chat ?bot|virtual assistant|digital assistant|"
    r"computer program|machine learning model)"
)
_LACKS = r"(?:do not|don't|does not|cannot|can ?not|can't|am not|am unable|lack|have no|never)"
_PATTERNS = {
    "as_an_ai": (
        rf"(?i)\bas an? (?:[\w,-]+ ){{0,4}}?{_MACHINE}\b[^.!?\n]{{0,60}}?\b(?:i|i'm|my|me)\b"
        rf"|\bi(?:'m| am) (?:just|only|merely|but|simply) an? (?:[\w-]+ ){{0,3}}?{_MACHINE}\b"
        rf"|\bi(?:'m| am) an? (?:[\w-]+ ){{0,3}}?{_MACHINE}\b[^.!?\n]{{0,30}}?\b(?:and|so|,) (?:therefore )?(?:i )?"
        rf"{_LACKS}\b"
    ),
    "knowledge_cutoff": (
        r"(?i)\b(?:as of|up to|until|since|after) my (?:last|latest|most recent|knowledge|training)[\w -]{0,20}?"
        r"(?:update|training|cut-?off|data)\b"
        r"|\bmy (?:knowledge|training|training data|information)(?: base)? (?:has a |only |was |is )?"
        r"(?:cut-?off|goes (?:up )?(?:to|until)|extends|(?:last )?updated|limited to|current (?:up )?(?:to|as of))\b"
        r"|\bi (?:do not|don't|cannot|can't) (?:currently )?(?:have |access |have access to )(?:to )?real-?time\b"
    ),
    "unfilled": r"(?:\A|[^$])(\{\{ ?[A-Za-z_]\w{0,40} ?\}\})",
}
_FENCED = r"(?s)```.*?(?:```|\z)"
_QUOTED = r"\"[^\"\n]{0,400}\"|“[^”\n]{0,400}”"
#: Words that no sentence ends with.
_GOES_ON = (
    "the a an and or but of to with for from into that which because if their its your our my his is are was were"
)
_BROKEN = rf"(?i)(?:\S+\s+){{4}}(?:\S*[,(\[]|\b(?:{_GOES_ON.replace(' ', '|')}))\s*\z"
#: How a letter ends.
_SIGNED = r"(?i)\b(?:best|regards|wishes|sincerely|yours|faithfully|truly|cheers|thanks|love),\s*\z"
#: A last line of running text that no mark ends (lists, quotations, headings, tables begin with one), and how a whole
#: sentence ends; of those there are two or more, since who writes none leaves out the last full stop too.
_LAST_LINE = r"([^\n]*)\z"
_UNENDED = r"^[\p{L}\p{N}(][^|]*?(?:\S+\s+){7}[^|]*?\s\p{Ll}[\p{L}'’-]*\z"
_NUMBERED = r"^(?:\d{1,3}|[A-Za-z])[.)]\s"
_SENTENCE_END = r"[.!?。！？][\"”')\]]*(?:\s|\z)"
_SHOWN = 120  # characters of evidence


@op("sft.boilerplate", version=2)
def boilerplate(frame: pl.DataFrame) -> Split:
    """Drop conversations with such an answer (see the module); `value` is the message it is in, counted from 1, the
    evidence the words."""
    spoken = answers(frame)
    bare = pl.col("content").str.replace_all(_FENCED, " ").str.replace_all("[’‘]", "'").str.replace_all(_QUOTED, " ")
    fences = pl.col("content").str.count_matches(r"(?m)^[ \t]*```")
    final = pl.col("at") == pl.col("at").max().over("row")
    spoken = spoken.with_columns(bare=bare, final=final)
    said = {
        name: pl.col("bare").str.extract(pattern if name == "unfilled" else f"({pattern})", 1)
        for name, pattern in _PATTERNS.items()
    }
    tail = pl.col("content").str.strip_chars().str.tail(_SHOWN)
    said["open_code"] = pl.when(fences % 2 == 1).then(pl.lit("```"))
    prose = fences == 0
    line = pl.col("content").str.strip_chars().str.extract(_LAST_LINE, 1).str.strip_chars()
    unended = line.str.contains(_UNENDED) & ~line.str.contains(_NUMBERED)
    unended &= pl.col("content").str.count_matches(_SENTENCE_END) >= 2
    broken = (tail.str.contains(_BROKEN) & ~tail.str.contains(_SIGNED)) | unended
    said["breaks_off"] = pl.when(final & prose & broken).then(tail.str.tail(60))
    found = pl.concat(
        spoken.select("row", "at", evidence=expression).drop_nulls("evidence").with_columns(reason=pl.lit(name))
        for name, expression in said.items()
    )
    first = found.unique("row", keep="first", maintain_order=True).sort("row")
    drops = ledger(
        frame.select("id")[first["row"]].hstack(first.drop("row")),
        value=pl.col("at") + 1,
        evidence=pl.col("evidence").str.replace_all(r"\s+", " ").str.head(_SHOWN),
    )
    return Split(frame.filter(~pl.int_range(pl.len()).is_in(first["row"].implode())), drops)
