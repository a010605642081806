"""Where a response that a model was trained on comes from: its task, its scores, and the models before.

The law: what is told is what stands in the rollouts and in the dataset of the task; nothing is judged again.
"""

from __future__ import annotations

from typing import Any

from gristmill.dataops.dataset import Dataset, InputError
from gristmill.flows.commands.common import plain, table
from gristmill.flows.models import ancestry, is_model


def is_rollouts(dataset: Dataset) -> bool:
    """Whether rows are responses that a model was trained on, as `rl` and `ppo` publish them."""
    return dataset.kind == "rows" and {"sources", "response", "scores"} <= set(dataset.schema().names)


def rollout(dataset: Dataset, number: int) -> dict[str, Any]:
    """One response: what was asked and answered, what it was worth by whose word, where its task stands, and the models
    from the one that training started from. Raises InputError where there is no such row or task."""
    from gristmill.dataops.lineage import row_at, values
    from gristmill.flows.preferred import origin

    row = values(*row_at(dataset, number))
    numbers = [name for name, value in row.items() if isinstance(value, list) and name not in ("scores", "prompt")]
    start = next(item for item in dataset.inputs if is_model(item))
    story = {
        "dataset": dataset.name,
        "key": dataset.key,
        "row": number,
        "models": [
            {"name": item.name, "key": item.key, "op": item.manifest["ops"][-1]["name"]} for item in ancestry(start)
        ],
        **{name: value for name, value in row.items() if name not in ("id", *numbers)},
    }
    (task,) = row["sources"]
    home = origin(dataset.inputs, task)
    if home is not None:
        return story | {"task": {"dataset": home[0].name, "key": home[0].key, "row": home[1], "id": task.hex()}}
    raise InputError(f"the task {task.hex()} of row {number} is in none of the inputs of {dataset.name}")


def told(story: dict[str, Any]) -> str:
    """As lines for a terminal."""
    task = story["task"]
    asked = story["prompt"] if isinstance(story["prompt"], str) else story["prompt"][-1]["content"]
    lines = [["row", f"{story['dataset']}:{story['key'][:12]} row {story['row']}"]]
    lines += [["started from", f"{item['name']}:{item['key'][:12]} by {item['op']}"] for item in story["models"]]
    lines += [
        ["step", str(story["step"])],
        ["task", f"{task['dataset']}:{task['key'][:12]} row {task['row']}  id {task['id']}"],
        ["asked", plain(" ".join(asked.split()))],
        ["answered", plain(" ".join(story["response"].split()))],
    ]
    for item in story["scores"]:
        score = "not judged" if item["score"] is None else f"{item['score']:g}"
        lines.append(["score", f"{item.get('scorer', item.get('name'))}: {score}  {item['reason']}"])
    return table(lines)
