"""Where a model comes from: the models before it, and the rows that it was trained on.

Which rows a step saw is a pure function of what its manifest says, so they are worked out and nothing has to be logged.
The law: sample n of a model is the row that its training step read as its n-th.
"""

from __future__ import annotations

from gristmill.dataops.dataset import Dataset, InputError


def is_model(dataset: Dataset) -> bool:
    """Whether a dataset holds a model's weights."""
    names = {entry["file"] for entry in dataset.manifest.get("files", [])}
    return "files/config.json" in names


def ancestry(model: Dataset) -> list[Dataset]:
    """The model, the one that its training started from, and so on back to fresh weights."""
    chain = [model]
    while True:
        before = next((item for item in chain[-1].inputs if is_model(item)), None)
        if before is None:
            return chain
        chain.append(before)


def sample(model: Dataset, number: int) -> tuple[Dataset, int]:
    """The dataset and the row in it that training read as sample `number`, from 0. Raises InputError where it read
    fewer, or where the model was not trained on rows."""
    from gristmill.training.post.data import plan

    params = model.manifest["ops"][-1]["params"]
    weights = params.get("weights")
    if weights is None or "rows" not in params:
        raise InputError(f"{model.name} at {model.path} was not trained on rows of datasets")
    read = model.manifest["stats"]["steps"] * params["rows"]
    if not 0 <= number < read:
        raise InputError(f"{model.name} read samples 0 to {read - 1:,}; there is no sample {number:,}")
    sources = model.inputs[: len(weights)]
    source, row = plan([item.rows for item in sources], weights, params["seed"], number + 1)
    return sources[int(source[number])], int(row[number])


def pretrained(model: Dataset) -> tuple[list[Dataset], Dataset]:
    """The chain from a model back to the step that read text, and that step's checkpoint. Raises InputError where no
    step of it was pretraining under this root."""
    chain = ancestry(model)
    for at, item in enumerate(chain):
        if item.manifest["ops"][-1]["name"] == "pretrain":
            return chain[: at + 1], item
    raise InputError(f"{model.name} does not go back to pretraining here: {' <- '.join(item.name for item in chain)}")
