"""The flywheel, whole and for real: judgements over HTTP become a promoted model, and whatever is killed, once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import wheeled
from flywheel import Up, aligned, ask, check, command, done, raters, running

from gristmill.dataops.store import Store

BATCH = 200  # judgements
ITEMS = 100  # each judged twice
STEPS = ("evaluate", "preference", "generate")  # in this order
MAKE = ("--threshold", str(BATCH), "--wanted", "2")


def test_judgements_become_a_promoted_model_and_poison_is_blocked_whatever_dies(tmp_path: Path) -> None:
    with running(tmp_path / "root") as up:
        assert ask(up.root, ITEMS, 0, *MAKE)["added"] == ITEMS
        said = raters(up)
        with said.judging(BATCH, wheeled.right):
            pass
        [first] = aligned(up, 1)
        assert (first["verdict"], first["reasons"], first["start"]["name"]) == ("promoted", [], "seed")
        assert first["judgements"]["given"] == first["judgements"]["counted"] == BATCH
        [batch] = first["batches"]
        store = Store(up.root)
        model = store.get("assistant@promoted")
        assert first["promoted"]["key"] == model.key
        page = (up.root / "reports" / "align-1" / "result.md").read_text()
        assert page.startswith("# Alignment 1: promoted") and "queue better, batch 1" in page.lower()
        # What the promoted model says now is asked next.
        assert first["asked"]["policy"] == f"assistant:{model.key[:12]}" and first["asked"]["items"] > 0
        # From the model back to what people said.
        made, back = [model], model
        while back.manifest["inputs"]:
            back = back.input(0)
            made.append(back)
        chain = ["assistant", "assistant-pairs", "assistant-pairs-pairs", "assistant-pairs-latest", "feedback-better"]
        assert [one.name for one in made] == chain and (batch["dataset"], batch["key"]) == (back.name, back.key)
        assert back.rows == BATCH

        assert ask(up.root, ITEMS, 100)["open"] == ITEMS + first["asked"]["items"]
        # Then the runner is killed with all that it runs, and once it trains again the trainer.
        kills = [Kill("runner", 0, "preference"), Kill("trainer", 0, "preference")]
        with said.judging(BATCH, wheeled.flipped):
            assert all(strike(up, kills, lambda: done(up.root, 2), print))
        _, second = aligned(up, 2)
        assert second["verdict"] == "blocked" and store.get("assistant@promoted") == model
        assert "trusted preferences are not lost: preferences/accuracy" in second["reasons"][0]
        listed = command(up.root, "ls", "models").splitlines()
        rows = {line.split()[1]: line for line in listed[1:]}
        assert rows[model.key[:12]].split()[2:4] == ["passed", "promoted"]
        bad = rows[second["stages"][0]["model"]["key"][:12]]
        assert bad.split()[2] == "blocked" and second["reasons"][0] in bad
        assert said.counts["again"] > 0
        assert check(up.root, said) == {"judgements": 2 * BATCH, "batches": 2, "models": 2, "promoted": 1, "blocked": 1}
        up.stop()


@dataclass(frozen=True)
class Kill:
    """Whom to kill, and when: seconds after judging began, where a training step is named
    after that began."""

    victim: str
    after: float
    step: str = ""


def plan(rounds: int, seed: int) -> list[list[Kill]]:
    """Two kills in each round, at random moments; each victim comes in turn, and `up` itself once."""
    chance, turn = random.Random(seed), ["trainer", "runner", "server", "run", "feedback"]
    made = []
    for number in range(rounds):
        victims = [turn[number % 5], chance.choice([one for one in turn if one != turn[number % 5]])]
        if number == rounds // 2:
            victims[1] = "up"
        made.append([
            Kill(victim, chance.uniform(0, 6), chance.choice(STEPS))
            if victim in ("trainer", "run") else Kill(victim, chance.uniform(0, 6 if victim == "feedback" else 45))
            for victim in victims
        ])  # fmt: skip
    return made


def strike(up: Up, kills: list[Kill], over: Callable[[], bool], say: Callable[[str], None]) -> list[int]:
    """Do the kills, each at its time or when all is `over`, whatever comes first; returns who was killed, 0 for one
    that was not there."""
    began, struck = time.monotonic(), []

    def wait(seconds: float, ready: Callable[[], Any] = lambda: False) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not over() and not ready():
            time.sleep(0.2)

    def order(kill: Kill) -> float:
        return 20 + STEPS.index(kill.step) if kill.step else kill.after

    for kill in sorted(kills, key=order):
        if kill.step:
            wait(240, lambda step=kill.step: step in up.steps().values())
            wait(kill.after)
            wait(60, up.steps)  # that one may have ended
        else:
            wait(kill.after - (time.monotonic() - began))
        steps = up.steps()
        step = " ".join(steps.values())
        pid = up.kill(kill.victim)
        struck.append(pid)
        at = time.monotonic() - began
        say(
            f"{at:5.1f} s: {kill.victim} {f'({pid}) ' if pid else 'is not there '}{f'while {step} ran' if step else ''}"
        )
        if kill.victim not in ("server", "feedback"):
            wait(10, lambda gone=set(steps): not gone & set(up.steps()))
    return struck


def killed(root: Path, rounds: list[list[Kill]], say: Callable[[str], None]) -> dict[str, int]:
    """A batch in each round, of which everything happens in spite of the kills; returns what there is in the end."""
    with running(root) as up:
        ask(up.root, ITEMS, 0, *MAKE)
        said = raters(up)
        for number, kills in enumerate(rounds, 1):
            if number > 1:
                ask(up.root, ITEMS, 100 * (number - 1))
            began = time.monotonic()
            with said.judging(BATCH, wheeled.right, pause=0.05):
                strike(up, kills, lambda: done(up.root, number), say)  # noqa: B023
                struck = time.monotonic()
            result = aligned(up, number, 600)[-1]
            now = time.monotonic()
            say(f"round {number}: {result['verdict']} in {now - began:.0f} s, {now - struck:.0f} s from the last kill")
        found = check(up.root, said)
        up.stop()
    say(f"{found}, {dict(said.counts)}")
    return found


@pytest.mark.slow
def test_ten_rounds_of_kills_lose_nothing_and_train_nothing_twice(tmp_path: Path) -> None:
    rounds = plan(10, seed=1)
    found = killed(tmp_path / "root", rounds, lambda line: print(line, flush=True))
    assert (found["judgements"], found["batches"], found["models"]) == (10 * BATCH, 10, 10)
