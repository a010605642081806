"""One turn of the wheel: closed batches of judgements become a better model, or a reason why not.

    claim      the batches, the model to start from and the recipe, fixed in the database (claims.py)
    measure    the model that it starts from, as the one that comes out will be
    data       judgements to pairs or thumbs, encoded (flows/sets/preferences.py)
    stages     train, evaluate, hold against the gates: the first that does not pass ends it
    promote    the last one, where all passed
    ask        responses of what is promoted now, into the queue (asking.py)
    tell       a page, and the result in the database

Policy is in the recipe, Prefect in flows/posttrain.py. The laws: everything after the claim is a dataset whose address
follows from the claim, so a run that was killed anywhere goes on and makes the same; a batch is trained on once; what
is promoted moves only where every gate passed; runs on one machine come one after the other. Bad input that shows
before anything was trained gives the batches back; later it blocks. Not covered: two machines that train one alignment
at the same time, whose second finds what the first published.
"""

from __future__ import annotations

import contextlib
import fcntl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gristmill.dataops.chat.recipe import speaker
from gristmill.dataops.dataset import Dataset, InputError
from gristmill.dataops.feedback.database import Database
from gristmill.dataops.feedback.queues import queue_kind
from gristmill.dataops.gates.record import promote
from gristmill.dataops.store import Store
from gristmill.flows.stages import Blocked, weigh
from gristmill.flows.stages import Stage as Weighed
from gristmill.flows.train import named, train
from gristmill.flows.wheel import page
from gristmill.flows.wheel.asking import ask, sample
from gristmill.flows.wheel.claims import Alignment, Verdict, claim, claimed, ended, give_back
from gristmill.flows.wheel.recipe import NEW, Recipe, Stage, pinned, start_of, steps_of, unpinned

Step = Callable[[str, Callable[[], Any]], Any]
Kind = Literal["pairs", "thumbs"]
Gpu = Callable[[], contextlib.AbstractContextManager[Any]]


def _directly(_: str, work: Callable[[], Any]) -> Any:
    return work()


@dataclass
class Made:
    """What there is so far of an alignment, for its page."""

    start: Dataset
    before: Dataset | None = None
    sets: Mapping[str, Dataset] = field(default_factory=dict)
    stages: list[tuple[str, Weighed]] = field(default_factory=list)
    trained: bool = False
    reasons: list[str] = field(default_factory=list)


def align_batch(
    store: Store,
    db: Database,
    batch: int,
    recipe: Recipe,
    *,
    step: Step = _directly,
    gpu: Gpu = contextlib.nullcontext,
) -> dict[str, Any]:
    """Align by a closed batch and all before it that nobody took; returns the result, that of the first time where it
    was done. An alignment of the same model that was left undone is finished first.

    `step` runs each step, as a Prefect task in the flow; `gpu` is held around each that trains, evaluates or
    generates. Raises InputError for bad input that shows before anything is trained, and what `train` raises.
    """
    with _alone(store.root):
        while True:
            found = step("claim", lambda: _claimed(store, db, batch, recipe))
            result = found.result if found.result is not None else _aligned(store, db, found, step, gpu)
            if batch in [one.id for one in found.batches]:
                return dict(result)
            print(f"alignment {found.id} was left undone: {result['verdict']}", file=sys.stderr, flush=True)


def _claimed(store: Store, db: Database, batch: int, recipe: Recipe) -> Alignment:
    if (stands := claimed(db, batch)) is not None:
        return stands  # by its own recipe, whatever this one says
    if recipe.asking is not None and recipe.asking.queue is not None and queue_kind(db, recipe.asking.queue) is None:
        raise InputError(f"no queue {recipe.asking.queue!r} to ask in: `gristmill feedback queue` makes it")

    def start() -> str:
        model = start_of(store, recipe)
        return f"{model.name}:{model.key}"

    return claim(db, batch, start, pinned(store, recipe))


def _aligned(store: Store, db: Database, found: Alignment, step: Step, gpu: Gpu) -> dict[str, Any]:
    """Do what an alignment has left to do, and end it."""
    began = time.perf_counter()
    made = Made(store.get(found.start))

    def held(name: str, work: Callable[[], Any]) -> Any:
        def holding() -> Any:
            with gpu():
                return work()

        return step(name, holding)

    try:
        recipe = unpinned(found.recipe)
        verdict = _judged(store, found, recipe, made, step, held)
    except InputError as error:
        if not made.trained:
            give_back(db, found.id)
            raise
        verdict = "blocked"
        made.reasons.append(str(error))
    if verdict == "promoted":
        step("promote", lambda: promote(store, made.stages[-1][1].model))
    now = made.stages[-1][1].model if verdict == "promoted" else made.start
    asking, asked = recipe.asking, None
    if asking is not None:
        queue = asking.queue or found.queue
        responses = held("generate", lambda: sample(store, asking, now, found.id))
        asked = step("ask", lambda: ask(db, queue, asking, responses, now))
    result = page.result(store.root, found, made, verdict, now, asked, time.perf_counter() - began)
    step("tell", lambda: page.write(store.root, result))
    stands = ended(db, found.id, verdict, result).result
    assert stands is not None
    return stands


def _judged(store: Store, found: Alignment, recipe: Recipe, made: Made, step: Step, held: Step) -> Verdict:
    """Make the set and run the stages, as far as they pass; `made` is told what there is and why it ended."""
    evaluation = recipe.evaluation
    asked = {"model": named(made.start), "name": f"{made.start.name}-evaluation", **evaluation}
    made.before = Dataset.load(held("measure", lambda: train("evaluate", store, asked))["path"])
    kind: Kind = "thumbs" if found.kind == "thumbs" else "pairs"
    try:
        made.sets = step("preferences", lambda: _set(store, found, recipe, kind))
    except InputError as error:  # ties, judgements that nobody could make: the batch says nothing
        made.reasons.append(str(error))
        return "nothing"
    new = made.sets["encoded"]
    if new.rows < recipe.least:
        made.reasons.append(f"{new.rows} {kind} are left, and the recipe wants {recipe.least} at least")
        return "nothing"
    gates = page.folder(store.root, found.id) / "gates.yaml"
    gates.parent.mkdir(parents=True, exist_ok=True)
    gates.write_text(found.recipe["gates"])
    model = made.start
    for wanted in recipe.stages:
        clock = time.perf_counter()
        spec = _spec(store, wanted, recipe, made.sets, model, kind)
        told = held(wanted.step, partial(train, wanted.step, store, spec))
        made.trained = True
        try:
            stage = held("gate", partial(weigh, store, told, evaluation, gates, clock))
        except Blocked as blocked:
            made.stages.append((wanted.step, blocked.stage))
            made.reasons += blocked.stage.judgement.manifest["stats"]["reasons"]
            return "blocked"
        made.stages.append((wanted.step, stage))
        model = stage.model
    return "promoted"


def _set(store: Store, found: Alignment, recipe: Recipe, kind: Kind) -> dict[str, Dataset]:
    """The preference set of an alignment's batches, encoded for the model that it starts from."""
    from gristmill.flows.sets.preferences import preference_set

    of_pairs: dict[str, Any] = {}
    if kind == "pairs":
        of_pairs = {name: getattr(recipe, name) for name in ("policy", "aspects", "min_margin", "noisy")}
    judged = [store.get(f"{one.dataset}:{one.key}") for one in found.batches]
    return preference_set(
        store, judged, name=f"{recipe.model}-{kind}", kind=kind, chat=speaker(store, found.start),
        min_accuracy=recipe.min_accuracy, holdout=recipe.holdout, max_tokens=recipe.max_tokens, **of_pairs,
    )  # fmt: skip


def _spec(
    store: Store, wanted: Stage, recipe: Recipe, sets: Mapping[str, Dataset], model: Dataset, kind: Kind
) -> dict[str, Any]:
    """The spec of a training step. Thumbs are learned by KTO, unless the recipe names another loss."""
    data = {ref: sets["encoded"] if ref == NEW else store.get(ref) for ref in wanted.data}
    spec = {
        "name": recipe.model, "start": named(model), **wanted.settings,
        "data": [named(data[ref], weight=weight) for ref, weight in wanted.data.items()],
        "steps": steps_of(wanted, sum(item.rows for item in data.values())),
    }  # fmt: skip
    if wanted.step == "preference" and kind == "thumbs" and "loss" not in wanted.settings:
        spec["loss"] = "kto"
        spec.pop("sft_weight", None)  # of the DPO family
    if NEW in wanted.data and "heldout-encoded" in sets:
        spec.setdefault("validation", [named(sets["heldout-encoded"])])
    return spec


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One alignment under a root at a time; the system frees the lock of a killed run."""
    folder = root / ".building"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "align.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another alignment is running here; this one comes after it", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
