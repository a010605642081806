"""A set of preference pairs as one HTML file: what its chosen replies have in common, and which pairs to look at.

In the dress of the quality report: inert, small, nothing loaded. The law: every share stands with its interval and
beside one half, and what could not be computed says why. Not covered: whether a preference is good; that is for people,
who find here the pairs to read first.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gristmill.dataops.dataset import Dataset
from gristmill.dataops.noise.overview import SHOWN, numbers_of
from gristmill.dataops.report.charts import histogram_svg, overlay_svg
from gristmill.dataops.report.draw import box, count_of, human, percent, picture
from gristmill.dataops.report.markup import Numbers, cards, document, panel, table, text, write_pair

_WIDE, _HIGH = 170.0, 22.0  # pixels of a share's picture
_MEANS = {
    "chars": "characters", "words": "words", "lists": "list items", "headings": "headings", "bold": "bold runs",
    "code": "code marks", "paragraphs": "blank lines", "questions": "question marks",
    "exclamations": "exclamation marks",
}  # fmt: skip
_KEYS = '<span class="key"><i class="ka"></i>rejected</span><span class="key"><i class="kb"></i>chosen</span>'
_STRONG = 0.1  # beyond one half: a bias that the head of the page names,
_OFTEN = 0.02  # where it is of at least this share of the pairs


def write_preferences(dataset: Dataset, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write report.html and report.json into a folder; returns their paths. Raises InputError where there are no
    pairs."""
    numbers = numbers_of(dataset)
    return write_pair(folder, "report", render(numbers), numbers)


def render(numbers: Numbers) -> str:
    """The page of the numbers of `numbers_of`."""
    sections = [
        ("bias", "Bias", "What the chosen replies have more of", _bias(numbers)),
        ("noise", "Noise", "Pairs that may be the wrong way round", _noise(numbers)),
        ("slices", "Slices", "By slice", _slices(numbers)),
        ("topics", "Topics", "What the prompts are about", _topics(numbers)),
        ("policy", "On-policy", "What the model could have said itself", _policy(numbers)),
        ("twice", "Duplicates", "Duplicates and conflicts", _twice(numbers)),
    ]
    name = text(numbers["dataset"]["name"])
    about = f"Made by gristmill from {name}. The same numbers are in report.json."
    return document(f"{name}: preference report", _head(numbers), sections, about)


def _head(numbers: Numbers) -> str:
    twice, noise, judgements = numbers["twice"], numbers["noise"], numbers["judgements"]
    lead = f"{count_of(numbers['pairs'], 'pair')} of {count_of(twice['prompts'], 'prompt')}."
    figures = [(human(numbers["pairs"]), "pairs"), (human(twice["prompts"]), "different prompts")]
    longer = numbers["whole"]["longer"]
    if longer:
        figures.append((_share(longer), "of the pairs prefer the longer reply"))
    if noise["why_not"] is None and noise["told"]:
        figures.append((human(noise["suspect"]), f"suspect at most, {percent(noise['suspect'], noise['fitted'])}"))
    figures.append((human(twice["in_conflict"]), "pairs that contradict another"))
    if judgements and judgements["agree"]:
        figures.append((_share(judgements["agree"]), f"agreement of {count_of(judgements['raters'], 'rater')}"))
    stamp = [f"made {text(numbers['at'] or 'at an unknown time')}"]
    stamp.append("reproducible" if numbers["reproducible"] else "not reproducible")
    items = "".join(f"<li>{notice}</li>" for notice in _notices(numbers))
    return (
        f'<header class="top"><p class="eyebrow">gristmill preference report</p>'
        f'<h1>{text(numbers["dataset"]["name"])}</h1><p class="lead">{lead}</p>'
        f'<p class="meta">key <code>{text(numbers["dataset"]["key"])}</code><br>'
        f"digest <code>{text(numbers['dataset']['digest'])}</code><br>{' · '.join(stamp)}</p>"
        f'{cards(figures)}<ul class="notices">{items}</ul></header>'
    )


def _notices(numbers: Numbers) -> list[str]:
    """What should be known before training on the pairs."""
    twice, margins, noise, found = numbers["twice"], numbers["margins"], numbers["noise"], []
    if twice["equal_sides"]:
        found.append(f"{count_of(twice['equal_sides'], 'pair')} with equal replies: nothing is preferred there.")
    if margins and margins["not_above_zero"]:
        found.append(
            f"{count_of(margins['not_above_zero'], 'pair')} with a margin of 0 or less: a tie is no preference."
        )
    if twice["conflicts"]:
        found.append(f"{count_of(twice['in_conflict'], 'pair')} contradict another of the same prompt and replies.")
    for item in numbers["amounts"]:
        if item["name"] != "words" and _leans(item["more"]) and item["more"]["n"] >= _OFTEN * numbers["pairs"]:
            name = _MEANS[item["name"]]
            found.append(f"Where the {name} differ, {_share(item['more'])} of the chosen replies have more.")
    if _leans(numbers["position"]):
        found.append(f"{_share(numbers['position'])} of the judgements prefer the reply that was shown first.")
    if noise["why_not"] is None and not noise["told"]:
        found.append("The reward model does no better than chance on pairs it has not seen: no pair is called suspect.")
    return found


def _leans(found: Numbers | None) -> bool:
    """Whether a share is away from one half, beyond its interval and by more than a little."""
    return found is not None and abs(found["value"] - 0.5) > _STRONG and (found["low"] > 0.5 or found["high"] < 0.5)


def _share(found: Numbers | None) -> str:
    return "–" if found is None else percent(found["value"], 1)


def _part(value: float | None) -> str:
    return "–" if value is None else percent(value, 1)


def _cells(found: Numbers | None) -> list[str]:
    """A share, its interval, its picture and of how many: four cells."""
    if found is None:
        return ["–", "", "", "0"]
    limits = f"{100 * found['low']:.1f} to {100 * found['high']:.1f}%"
    return [_share(found), limits, share_svg(found), human(found["n"])]


def share_svg(found: Numbers) -> str:
    """A share with its interval on an axis from 0 to 1, and where one half is."""
    pad = 5.0

    def at(value: float) -> float:
        return pad + (_WIDE - 2 * pad) * min(max(value, 0.0), 1.0)

    left, right = at(found["low"]), at(found["high"])
    body = [
        f'<path class="ax" d="M{pad:g} {_HIGH / 2:g}H{_WIDE - pad:g}"/>',
        f'<path class="ax" d="M{at(0.5):.1f} 3V{_HIGH - 3:g}"/>',
        box(left, _HIGH / 2 - 3, right - left, 6, "b1"),
        f'<circle class="b1" cx="{at(found["value"]):.1f}" cy="{_HIGH / 2:g}" r="4.5"/>',
    ]
    return picture(_WIDE, _HIGH, f"{_share(found)}, one half is in the middle", body)


def _bias(numbers: Numbers) -> str:
    rows = [
        [_MEANS[item["name"]], human(item["chosen"]), human(item["rejected"]), *_cells(item["more"])]
        for item in numbers["amounts"]
    ]
    heads = ["", "chosen, mean", "rejected, mean", "chosen has more", "95 % interval", "", "pairs that differ"]
    if numbers["position"]:
        rows.append(["shown first", "", "", *_cells(numbers["position"])])
    note = "Of the pairs in which the replies differ. The mark is one half: no bias."
    by_ratio = [[text(item["ratio"]), *_cells(item["longer"])] for item in numbers["lengths"]["by_ratio"]]
    chart = _sides(numbers["lengths"]["bins"], (), "Characters of the replies")
    panels = panel("Characters of a reply", f"{_KEYS} Heights are square roots.", chart)
    if margins := numbers["margins"]:
        shown = histogram_svg(margins["bins"], (), "Margins")
        panels += panel("Margins", f"{count_of(margins['known'], 'pair')} with one.", shown)
    ratios = table(["longer by", "longer is chosen", "95 % interval", "", "pairs"], by_ratio, ".nnwn")
    return (
        f'<p class="note">{note}</p>{table(heads, rows, ".nnnnwn")}<div class="grid">{panels}</div>'
        f"<h4>The longer reply, by how much longer it is</h4>{ratios}"
    )


def _sides(bins: Numbers, rules: Sequence[Numbers], title: str) -> str:
    """The chosen replies as an outline over the rejected ones."""
    rejected = [both - chosen for both, chosen in zip(bins["all"], bins["kept"], strict=True)]
    return overlay_svg({**bins, "a": rejected, "b": bins["kept"]}, {"a": rules, "b": rules}, title)


def _noise(numbers: Numbers) -> str:
    noise = numbers["noise"]
    if noise["why_not"] is not None:
        return f"<p>Not looked for: {text(noise['why_not'])}.</p>"
    accuracy = noise["accuracy"]
    some = "" if noise["fitted"] == noise["of"] else f" {human(noise['fitted'])} of {human(noise['of'])} were fitted."
    how = (
        "A linear reward model over n-grams, lengths and formats says of every pair, from the pairs of other prompts, "
        f"how likely it is the right way round. It agrees with {_share(accuracy)} of the pairs "
        f"({100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}).{some}"
    )
    if noise["told"]:
        how += (
            f" By confident learning about {percent(noise['share'], 1)} are the wrong way round; what the model cannot "
            "learn counts among them, so this is an upper bound where it agrees with few. Pairs are for reading before "
            "dropping: without them the rest leans further the model's way, towards its liking for length too."
        )
    else:
        how += " That is no better than chance, so none is called suspect; the order below says little."
    shown = histogram_svg(noise["bins"], (), "Chance that a pair is the right way round")
    keys = '<span class="key"><i class="k0"></i>suspect</span><span class="key"><i class="k1"></i>not</span>'
    chart = panel("Chance that a pair is the right way round", f"{keys} Heights are square roots.", shown)
    below = [[f"below {item['chance']:g}", human(item["pairs"]), _part(item["turned"])] for item in noise["below"]]
    expected = table(["chance", "pairs", "would be turned"], below, ".nn")
    chart += f'<div class="panel"><h3>If they were judged again</h3>{expected}</div>'
    read = [item for item in numbers["noisy"] if "prompt" in item]
    listed = "".join(_pair(item, _why(item)) for item in read)
    more = f'<span class="note">{human(len(numbers["noisy"]))} by id in report.json</span>'
    title = f"The {len(read)} least likely, to be read first {more}"
    fold = f'<div class="folds"><details open><summary>{title}</summary>{listed}</details></div>'
    return f'<p>{how}</p><div class="grid">{chart}</div>{fold}'


def _why(item: Numbers) -> str:
    said = f"right with a chance of {percent(item['chance'], 1)}"
    return said if item["agree"] is None else f"{said} · raters agree {percent(item['agree'], 1)}"


def _pair(item: Numbers, why: str) -> str:
    """A prompt with its two replies."""
    quotes = ((side, text(item[side], SHOWN) or "(empty)") for side in ("chosen", "rejected"))
    sides = "".join(
        f'<div><span class="side">{side}</span><blockquote dir="auto">{said}</blockquote></div>'
        for side, said in quotes
    )
    identity = item["id"] if "id" in item else " and ".join(item["ids"])
    return (
        f'<div class="sample"><span class="side">prompt</span><blockquote dir="auto">{text(item["prompt"], SHOWN)}'
        f'</blockquote><div class="pair">{sides}</div><span class="why">{text(why)}</span>'
        f'<span class="note">{text(identity)}</span></div>'
    )


_SLICE = ("pairs", "longer is chosen", "model agrees", "suspect", "raters agree")


def _told(item: Numbers) -> list[str]:
    """The cells of _SLICE."""
    shares = {key: _interval(item[key]) for key in ("longer", "right", "agree")}
    return [human(item["pairs"]), shares["longer"], shares["right"], human(item["suspect"]), shares["agree"]]


def _interval(found: Numbers | None) -> str:
    if found is None:
        return "–"
    return f'{_share(found)} <span class="note">{100 * found["low"]:.0f} to {100 * found["high"]:.0f}</span>'


def _slices(numbers: Numbers) -> str:
    told = ""
    if judged := numbers["judgements"]:
        told = (
            f"<p>{count_of(judged['judgements'], 'judgement')} of {count_of(judged['raters'], 'rater')} on "
            f"{count_of(judged['pairs'], 'pair')}: {human(judged['ties'])} tie, {human(judged['against'])} prefer the "
            f"rejected reply. Two raters of a pair say the same in {_share(judged['agree'])} of the cases.</p>"
        )
    rows: list[Sequence[str]] = [["<b>all</b>", *_told(numbers["whole"])]]
    for group in numbers["slices"]:
        rows += [
            [f'{text(row["value"], 60)} <span class="note">{text(group["column"])}</span>', *_told(row)]
            for row in group["rows"]
        ]
        if rest := group["different"] - len(group["rows"]):
            rows.append([f'{rest} rarer <span class="note">{text(group["column"])}</span>', *[""] * 5])
    if len(rows) == 1 and not told:
        return ""
    return told + table(["slice", *_SLICE], rows, "wnnnnn")


def _topics(numbers: Numbers) -> str:
    if not numbers["topics"]:
        return ""
    rows = [
        [text(item["name"] or "no word in common with others"), human(item["prompts"]), *_told(item)]
        for item in numbers["topics"]
    ]
    note = "Prompts clustered by the words of their last message; a cluster is named by those that tell it apart."
    return f'<p class="note">{note}</p>{table(["topic", "prompts", *_SLICE], rows, "wnnnnnn")}'


def _policy(numbers: Numbers) -> str:
    found = numbers["policy"]
    if found is None:
        how = "<code>gristmill train logprobs</code> makes them."
        return f"<p>Not known: no log-probabilities of these pairs stand here. {how}</p>"
    rows = [
        [name, *_cells(found[key])]
        for name, key in (
            ("chosen replies on-policy", "chosen"),
            ("rejected replies on-policy", "rejected"),
            ("pairs with both on-policy", "both"),
            ("the model finds the chosen reply likelier", "likelier"),
            ("likelier per token", "likelier_per_token"),
        )
    ]
    rule = [{"threshold": found["threshold"], "side": "above"}]
    chart = _sides(found["bins"], rule, "Nats per token of the replies")
    said = (
        f"Under {text(found['model'])}, of {human(found['pairs'])} of {human(numbers['pairs'])} pairs. On-policy: at "
        f"most {found['threshold']:g} nats a token, by convention."
    )
    made = panel("Nats per token of a reply", f"{_KEYS} Heights are square roots.", chart)
    shares = table(["", "share", "95 % interval", "", "pairs"], rows, ".nnwn")
    return f'<p>{said}</p>{shares}<div class="grid">{made}</div>'


def _twice(numbers: Numbers) -> str:
    twice = numbers["twice"]
    rows = [
        ["pairs that repeat an earlier one", human(twice["copies"])],
        ["pairs with equal replies", human(twice["equal_sides"])],
        ["sets of pairs that contradict each other", human(twice["conflicts"])],
        ["pairs in them", human(twice["in_conflict"])],
        ["of these, outvoted", human(twice["outvoted"])],
        ["pairs of the prompt that has most", human(twice["most_of_one_prompt"])],
        ["replies that stand under several prompts", human(twice["wide_replies"])],
        ["prompts of the reply that has most", human(twice["widest_reply"])],
    ]
    shown = "".join(_pair(item, f"{item['votes'][0]} one way, {item['votes'][1]} the other") for item in twice["shown"])
    of = f'<span class="note">{len(twice["shown"])} of {human(twice["conflicts"])}</span>'
    fold = f'<div class="folds"><details><summary>Conflicts {of}</summary>{shown}</details></div>' if shown else ""
    return table(["", "number"], rows, ".n") + fold
