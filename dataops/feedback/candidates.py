"""What to ask raters next: candidates from policies' responses, ranked by a stated strategy.

    uncertainty   the scores of a reward model or judge are closest: it cannot tell which is better
    disagreement  several judges contradict each other most
    coverage      greedily, the prompt that adds most word pairs that no prompt before it had
    random        by a hash of the content and the seed

Of a prompt with more responses than a pair takes, the two are asked that the strategy ranks first (uncertainty and
disagreement), else two by hash. The law kept here: the ranking is a function of the candidates and the seed; their
order in the file does not count. Not covered: sampling the responses, and scoring them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, pstdev
from typing import Any

from gristmill.dataops.chat.messages import Fault
from gristmill.dataops.dataset import InputError
from gristmill.dataops.feedback.values import KINDS, LONGEST, STRATEGIES, number, of_item, same_order, sound
from gristmill.dataops.identity import canonical_json, row_id
from gristmill.dataops.preferences.turns import asked, reply


@dataclass(frozen=True)
class Response:
    """The message that one policy answered with; `scores` are those of the judges or reward models that read it, in
    their order."""

    message: Mapping[str, Any]
    policy: str | None
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A prompt (messages) with responses; `gold` is the right judgement where it is known; `source` the row it is from;
    `score` is what the strategy ranked it by, the highest first."""

    prompt: Sequence[Mapping[str, Any]]
    responses: tuple[Response, ...]
    gold: Any = None
    source: str | None = None
    tools: str | None = None
    score: float | None = None

    def identity(self, queue: str) -> str:
        """The id of this content in a queue: 32 hex digits."""
        said = [[bare(response.message), response.policy] for response in self.responses]
        asked = [bare(turn) for turn in self.prompt]
        return row_id("feedback.item", queue, canonical_json(asked), canonical_json(said), self.tools or "").hex()


def bare(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message without the fields that have no value."""
    return {name: value for name, value in message.items() if value is not None}


def candidate(row: Any, where: str) -> Candidate:
    """A candidate from a row {prompt, responses, gold?, tools?, id?}; the prompt is a text or messages, a response a
    text, or {text, policy?, scores?}, or {message, policy?, scores?}.

    Raises InputError, which names `where`, for a row that is none.
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("responses"), list) or not row["responses"]:
        raise InputError(f"{where}: no object with `prompt` and a list of `responses`")
    try:
        prompt = asked(row, ("prompt",))
        responses = tuple(_response(one, f"response {n}") for n, one in enumerate(row["responses"], 1))
        sound(canonical_json([prompt, [item.message for item in responses]]), "prompt and responses as JSON")
        tools, source = row.get("tools"), row.get("id")
        for name, text in (("tools", tools), ("id", source)):
            if text is not None and not isinstance(text, str):
                raise InputError(f"`{name}` is {text!r}, not a text")
            sound(text or "", name)
    except (Fault, InputError) as error:
        raise InputError(f"{where}: {error}") from None
    if not any((turn.get("content") or "").strip() for turn in prompt):
        raise InputError(f"{where}: the prompt is empty")
    if len(canonical_json(prompt)) > LONGEST:
        raise InputError(f"{where}: the prompt is longer than {LONGEST:,} characters")
    return Candidate(prompt, responses, row.get("gold"), source, tools)


def _response(given: Any, where: str) -> Response:
    made = {"text": given} if isinstance(given, str) else given
    if not isinstance(made, Mapping):
        raise InputError(f"{where} is no text, nor {{text, policy, scores}}")
    message = reply(made.get("message", made.get("text")), where)
    if len(message.get("content") or "") > LONGEST:
        raise InputError(f"{where}: {len(message['content']):,} characters, the most is {LONGEST:,}")
    scores = made.get("scores", [])
    scores = scores if isinstance(scores, list) else [scores]
    if not all(map(number, scores)):
        raise InputError(f"{where}: `scores` are numbers; leave out what could not be judged")
    policy = made.get("policy")
    policy = None if policy is None else sound(str(policy), where)
    return Response(bare(message), policy, tuple(map(float, scores)))


def fits(kind: str, one: Candidate, where: str) -> Candidate:
    """The candidate, if it can be asked as it is in a queue of this kind; its gold is checked. Raises InputError."""
    least, most = KINDS[kind]
    if not least <= len(one.responses) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise InputError(f"{where}: {len(one.responses)} responses; an item of a {kind} queue has {wanted}")
    try:
        return replace(one, gold=of_item(kind, one.gold, same_order(len(one.responses))))
    except InputError as error:
        raise InputError(f"{where}: gold: {error}") from None


def rank(candidates: Iterable[Candidate], kind: str, strategy: str, *, seed: int = 0) -> list[Candidate]:
    """Candidates in the order in which to ask them, each cut to what an item of this kind takes, with its score.

    Raises InputError for an unknown strategy, and where it needs scores that are not there.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"no strategy {strategy!r}; there are: {', '.join(STRATEGIES)}")
    cut = [
        choice
        for n, one in enumerate(candidates)
        if (choice := _choose(one, kind, strategy, seed, f"candidate {n}")) is not None
    ]
    hashed = sorted(cut, key=lambda one: _hash(one, seed))
    if strategy == "coverage":
        return _cover(hashed)
    return sorted(hashed, key=lambda one: -(one.score or 0.0))


def _choose(one: Candidate, kind: str, strategy: str, seed: int, where: str) -> Candidate | None:
    """Of all ways to make an item of it the one that the strategy ranks first; None where responses are all the same
    text, so that there is nothing to choose between."""
    takes = min(KINDS[kind][1], len(one.responses))
    ways: Sequence[tuple[Response, ...]] = [one.responses]
    if len(one.responses) > takes and one.gold is None:  # what is right is said of all of them
        ways = list(combinations(one.responses, takes))
    if takes > 1:
        ways = [way for way in ways if len({canonical_json(bare(response.message)) for response in way}) > 1]
    made = [fits(kind, replace(one, responses=way), where) for way in ways]
    if strategy in ("uncertainty", "disagreement"):
        made = [replace(way, score=_score(way, kind, strategy, where)) for way in made]
    return min(made, key=lambda way: (-(way.score or 0.0), _hash(way, seed)), default=None)


def _hash(one: Candidate, seed: int) -> bytes:
    return bytes.fromhex(one.identity(str(seed)))


def _score(one: Candidate, kind: str, strategy: str, where: str) -> float:
    """How unsure one judge is, 0 being sure and the scale that of the scores; or by how much several differ, 0 to 1."""
    table = [response.scores for response in one.responses]
    judges = len(table[0])
    if not judges or any(len(scores) != judges for scores in table):
        raise InputError(f"{where}: {strategy} needs `scores` of each response, the same judges for all of them")
    if strategy == "disagreement" and judges < 2:
        raise InputError(f"{where}: disagreement needs the scores of two judges or more; there is one")
    if strategy == "uncertainty":
        means = sorted(map(fmean, table), reverse=True)
        if kind == "thumbs":
            return -abs(means[0] - 0.5)
        if len(means) < 2:
            raise InputError(f"{where}: uncertainty is of pairs, rankings and thumbs; for a {kind} take another")
        return means[1] - means[0]
    if len(table) == 1:
        return pstdev(table[0])
    return max(_contradiction(first, second) for first, second in combinations(table, 2))


def _contradiction(first: Sequence[float], second: Sequence[float]) -> float:
    """1 where as many judges prefer the one as the other, 0 where all are of one mind."""
    signs = [(a > b) - (a < b) for a, b in zip(first, second, strict=True)]
    return 1 - abs(sum(signs)) / len(signs)


def _cover(hashed: Sequence[Candidate]) -> list[Candidate]:
    """Lazy greedy (Minoux 1978): what a prompt adds only ever shrinks, so most need not be counted again."""
    parts = [_pairs(one.prompt) for one in hashed]
    heap = [(-len(found), n) for n, found in enumerate(parts)]
    heapq.heapify(heap)
    seen: set[tuple[str, str]] = set()
    ranked = []
    while heap:
        gain, n = heapq.heappop(heap)
        adds = len(parts[n] - seen)
        if adds < -gain:
            heapq.heappush(heap, (-adds, n))
            continue
        seen |= parts[n]
        ranked.append(replace(hashed[n], score=float(adds)))
    return ranked


def _pairs(prompt: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
    text = " ".join(turn.get("content") or "" for turn in prompt)
    words = ["", *text.lower().split(), ""]
    return set(zip(words, words[1:], strict=False))
