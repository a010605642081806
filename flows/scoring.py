"""Verifiers and judges as training steps ask them: factories for `training/scoring.py`, named in a spec.

    {"name": "sums", "call": "gristmill.flows.scoring:verifier", "settings": {"verifier": "maths"}}
    {"name": "kind", "call": "gristmill.flows.scoring:judge",
     "settings": {"dataset": "judge@passed", "principles": ["It is kind."], "by": "logprobs"}}

`gristmill train` fills in the path and digest of what `dataset` names; a spec by hand has them. A reward model's is
`gristmill.training.reward:scorer`. The law: what could not be judged stays None, with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.dataops.dataset import InputError, is_remote
from gristmill.training.engines.settings import EngineSettings, open_engine
from gristmill.training.scoring import Rows, Score
from gristmill.training.spec import open_input
from gristmill.verifiers.verifier import Verifier, find

Scores = Callable[[Rows, Sequence[str]], list[Score]]


def verifier(verifier: str, **params: Any) -> Scores:
    """Scores by a verifier (its name, or FILE.py:FUNCTION) with these parameters. A row's `prompt` may be messages:
    the verifier sees the text of the last one. Raises InputError for an unknown verifier or parameter."""
    try:
        return _scores(find(verifier)(**params))
    except TypeError as error:
        raise InputError(f"{verifier}: {error}") from None


def judge(
    path: str | None = None,
    digest: str | None = None,
    engine: Mapping[str, Any] | None = None,
    principles: Sequence[Any] | None = None,
    against: bool = False,
    by: str = "letters",
    scale: int = 5,
) -> Scores:
    """Scores from 0 to 1 by a model that is asked: a checkpoint of ours (`path`, `digest`), or what `engine`
    (training/engines/settings.py) names, a server say. It grades by `principles` ({name, text, weight}, or texts; the
    shipped ones), or by a row's own `rubric`, on a `scale`; with `against` it says how far the response is better than
    the row's column `against`, asked in both orders. `by`: letters, reasons, logprobs.

    Raises InputError where nobody is to be asked, and as the checkpoint, the engine and the principles do.
    """
    from gristmill.verifiers.judge import constitution, verify

    if (path is None) != (digest is None):
        raise InputError("a judge's checkpoint is named by its path and its digest")
    if path is None and engine is None:
        raise InputError("a judge needs a model: a checkpoint's path and digest, or an engine")
    laws = None if principles is None else constitution.Constitution(constitution.principles(principles, "judge"))
    folder = None
    if path is not None and digest is not None:
        model = open_input(path, digest)
        if is_remote(model.path):
            raise InputError(f"{model.path}: copy the checkpoint to a local folder first")
        model.check_files()
        folder = model.file("")
    asked = open_engine(EngineSettings(**(engine or {})), folder)
    return _scores(
        verify.pairwise(asked, laws, by=by) if against else verify.pointwise(asked, laws, by=by, scale=scale)
    )


def _scores(judge: Verifier) -> Scores:
    def score(rows: Rows, responses: Sequence[str]) -> list[Score]:
        asked = [
            {**row, "prompt": _text(row["prompt"]), "response": response}
            for row, response in zip(rows, responses, strict=True)
        ]
        return [Score(verdict.score, verdict.reason, _answer(verdict.evidence)) for verdict in judge.rows(asked)]

    return score


def _text(prompt: Any) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


def _answer(evidence: Mapping[str, Any]) -> str | None:
    """What a response was taken to answer, where the verifier says it: equal answers are counted as one."""
    found = evidence.get("got", evidence.get("answer"))
    return None if found is None else str(found)
