"""The report's sections that draw: signals with thresholds, the corpus, duplicates, tokens and packing.

Each is made from the numbers alone and is empty where there is nothing to show.
"""

from __future__ import annotations

from gristmill.dataops.report.charts import bars_svg, columns_svg, histogram_svg
from gristmill.dataops.report.draw import count_of, human, percent
from gristmill.dataops.report.markup import Numbers, cards, key, panel, table, text


def signals(numbers: Numbers) -> str:
    """Every measured number with its thresholds, by op; numbers without a threshold are folded away."""
    gauges = [gauge for gauge in numbers["gauges"] if gauge["of"] == "text" and gauge["known"]]
    ruled: dict[str, list[Numbers]] = {}
    for gauge in gauges:
        if gauge["rules"]:
            ruled.setdefault(gauge["rules"][0]["op"], []).append(gauge)
    plain = [gauge for gauge in gauges if not gauge["rules"] and not gauge["length"]]
    if not ruled and not plain:
        return ""
    sampled, of = max(gauge["sampled"] for gauge in gauges), max(gauge["rows"] for gauge in gauges)
    drawn = f"all {human(of)} rows" if sampled >= of else f"a uniform sample of {human(sampled)} of {human(of)} rows"
    out = (
        f'<p class="note">Drawn from {drawn}. Bar heights are square roots of counts, so that rare values can be seen.'
    )
    if ruled:
        out += (
            " Shares beyond a threshold are counted on every row. A row is dropped by the first rule that it fails, "
            "so more rows can lie beyond a threshold than were dropped by it."
        )
    shaded = '<span class="key"><i class="kd"></i>threshold; what it drops is shaded</span>'
    out += "</p>" + key(numbers, shaded if ruled else "")
    for op, group in ruled.items():
        out += f'<h4>{text(op)}</h4><div class="grid">{"".join(_gauge(gauge, op) for gauge in group)}</div>'
    if plain:
        folded = f'<div class="grid">{"".join(_gauge(gauge, "") for gauge in plain)}</div>'
        opened = "" if ruled else " open"
        out += f"<details{opened}><summary>Numbers without a threshold ({len(plain)})</summary>{folded}</details>"
    return out


def _gauge(gauge: Numbers, op: str) -> str:
    """One distribution; rules of other ops than `op` name theirs."""
    facts = []
    for rule in gauge["rules"]:
        beyond = f"{percent(rule['beyond'], gauge['rows'])} are {rule['side']} {human(rule['threshold'])}"
        if not rule["drops_in_picture"]:
            beyond = "its rows were dropped before they were stored and are not drawn"
        by = "" if rule["op"] == op else f" ({text(rule['op'])})"
        facts.append(f"<b>{text(rule['reason'])}</b>{by}: {beyond}, {human(rule['dropped'])} dropped")
    found = gauge["quantiles"]
    spread = f"median {human(found.get('p50'))} · 90% in {human(found.get('p5'))} to {human(found.get('p95'))}"
    spread += f" · most {human(gauge['most'])}"
    if unknown := gauge["rows"] - gauge["known"]:
        spread += f" · not known for {human(unknown)}"
    chart = histogram_svg(gauge, gauge["rules"], f"Distribution of {gauge['label']}")
    return panel(gauge["label"], "<br>".join([*facts, spread]), chart)


def corpus(numbers: Numbers) -> str:
    """Languages, dates, lengths and hosts."""
    parts = [_names(numbers, "language", "Languages", 12)]
    parts += [_dates(numbers, "crawled", "Crawl date"), _dates(numbers, "published", "Date that the page states")]
    lengths = [gauge for gauge in numbers["gauges"] if gauge["length"] and gauge["of"] == "text" and gauge["known"]]
    for gauge in lengths[-1:]:
        chart = histogram_svg(gauge, [], "Length of the text")
        parts.append(panel("Length of the text in characters", _spread(gauge, "characters"), chart))
    parts.append(_names(numbers, "host", "Hosts", 20))
    return key(numbers) + f'<div class="flow">{"".join(parts)}</div>' if any(parts) else ""


def _names(numbers: Numbers, name: str, title: str, most: int) -> str:
    """The most frequent values of a column as bars."""
    found = numbers[name]
    if not found or not found["top"]:
        return ""
    shown = found["top"][:most]
    more = found["others"]["rows"] + sum(row["rows"] for row in found["top"][most:])
    total = sum(row["rows"] for row in shown) + more + found["without"]["rows"]
    bars = [
        (
            row["name"],
            row["rows"],
            row["kept"],
            f"{human(row['rows'])} ({percent(row['rows'], total)}), {human(row['kept'])} stay",
        )
        for row in shown
    ]
    count = human(found["different"]) if found["exact"] else f"more than {human(found['different'])}"
    note = f"{count} in all, {human(found['different_kept'])} of them among the rows that stay."
    note += f" {human(more)} rows have one that is not shown." if more else ""
    note += f" {human(found['without']['rows'])} rows have none." if found["without"]["rows"] else ""
    return panel(title, note, bars_svg(bars, f"{title} by rows"))


def _dates(numbers: Numbers, name: str, title: str) -> str:
    """Rows by month or year as columns."""
    found = numbers[name]
    if not found or not found["bins"]:
        return ""
    columns = [(row["label"], row["rows"], row["kept"]) for row in found["bins"]]
    note = f"Rows by {found['by']}; {human(found['without'])} have no date"
    note += f", {human(found['earlier'])} an earlier one." if found["earlier"] else "."
    return panel(title, note, columns_svg(columns, f"{title} by {found['by']}"))


def _spread(gauge: Numbers, unit: str) -> str:
    rows = [("All", gauge["quantiles"])]
    rows += [("Those that stay", gauge["quantiles_kept"])] if gauge["kept"] != gauge["all"] else []
    told = [
        f"<b>{name}</b>: median {human(found['p50'])} · 90% in {human(found['p5'])} to {human(found['p95'])} {unit}"
        for name, found in rows
        if found
    ]
    return "<br>".join([*told, f"mean {human(gauge['mean'])} · longest {human(gauge['most'])}"])


def duplicates(numbers: Numbers) -> str:
    """Groups by size, likeness, and the biggest groups with the row that stays."""
    found = numbers["duplicates"]
    if not found["groups"]:
        return ""
    stayed = count_of(found["groups"], "row")
    note = f"{count_of(found['rows'], 'row')} dropped for repeating one of {stayed} that stayed. "
    note += "A group is a row that stayed with those that repeat it."
    sizes = [(row["label"], row["groups"], 0) for row in found["sizes"]]
    parts = [panel("Groups by number of rows", note, columns_svg(sizes, "Groups by number of rows"))]
    if like := found["likeness"]:
        rules = [{"threshold": threshold, "side": "from"} for threshold in like["thresholds"]]
        middle = human(like["quantiles"]["p50"])
        note = f"Of {human(like['sampled'])} dropped rows to the row that stayed; median {middle}."
        parts.append(panel("Similarity", note, histogram_svg(like, rules, "Similarity to the row that stayed")))
    rows = []
    for group in found["biggest"]:
        row = group["row"] or {}
        reasons = "<br>".join(f"{text(reason)} {human(n)}" for reason, n in group["reasons"].items())
        where = f"{text(row.get('title') or 'untitled')}<br><code>{text(row.get('url') or group['kept'])}</code>"
        if later := row.get("dropped_by"):
            where += f'<br><span class="why">dropped later: {text(later[2])} ({text(later[1])})</span>'
        rows.append((human(group["size"]), reasons, where))
    heads = ("rows", "dropped as", "row that stayed")
    return f'<div class="flow">{"".join(parts)}</div><h4>Biggest groups</h4>{table(heads, rows, "..w")}'


def tokens(numbers: Numbers) -> str:
    """Tokens per document, fill of the sequences and use of the vocabulary."""
    figures, parts = [(human(numbers["totals"]["tokens"]), "tokens")], []
    encoded = next((stage for stage in numbers["funnel"] if stage["tokens"]["kept"]), None)
    if encoded and encoded["bytes"]["in"] and encoded["chars"]["in"]:
        count = encoded["tokens"]["kept"]
        rate = f"bytes of text a token, {human(encoded['chars']['in'] / count)} characters"
        figures.append((human(encoded["bytes"]["in"] / count), rate))
    gauges = [gauge for gauge in numbers["gauges"] if gauge["of"] == "tokens" and gauge["length"] and gauge["known"]]
    for gauge in gauges[-1:]:
        chart = histogram_svg(gauge, [], "Tokens per document")
        parts.append(panel("Tokens per document", _spread(gauge, "tokens"), chart))
    packed = numbers["packing"]
    if packed and packed["sequences"]:
        places = packed["tokens"] + packed["padding"]
        figures += [
            (human(packed["sequences"]), f"sequences of {human(packed['seq_len'])}"),
            (percent(packed["padding"], places), f"padding, {human(packed['padding'])} of {human(places)} places"),
            (percent(packed["full"], packed["sequences"]), "of the sequences are full"),
            (human(packed["split_documents"]), f"of {human(packed['documents'])} documents are split over sequences"),
        ]
        step = 100 // len(packed["fill"])
        fill = [(f"{step * i}%", n, n) for i, n in enumerate(packed["fill"])]
        note = f"Each column holds {step}% of fill; the last one includes full sequences."
        parts.append(panel("Fill of the sequences", note, columns_svg(fill, "Sequences by fill")))
        parts.append(_vocabulary(packed["vocabulary"]))
    return cards(figures) + f'<div class="flow">{"".join(parts)}</div>' if parts else ""


def _vocabulary(used: Numbers) -> str:
    """How much of the vocabulary stands in the sequences, and how much of the tokens its head makes up."""
    size = f" of {human(used['size'])} ids ({percent(used['used'], used['size'])})" if used["size"] else " ids"
    note = f"{human(used['used'])}{size} occur, {human(used['used_once'])} of them once."
    bars = [
        (f"the {int(n):,} most frequent ids", 1.0, share, f"{percent(share, 1)} of all tokens")
        for n, share in used["share_of_top"].items()
    ]
    return panel("Vocabulary in use", note, bars_svg(bars, "Share of the most frequent ids") if bars else "")
