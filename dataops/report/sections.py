"""The sections of the report's page, each from the numbers alone: a title and its HTML, or nothing to show.

The law: every string that comes from data passes `text`, which escapes it; no attribute is ever made of data.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.dataops.report.charts import bars_svg, columns_svg, histogram_svg
from gristmill.dataops.report.draw import human, human_bytes, human_time, percent

Numbers = Mapping[str, Any]
SAMPLE_BYTES = 1_600_000  # of HTML for rows: what keeps the page under 3 MB whatever is in them
_KEY = (
    '<p class="note"><span class="key"><i class="k0"></i>all rows of {base}</span>'
    '<span class="key"><i class="k1"></i>rows that stay to {top}</span>{more}</p>'
)


def text(value: Any) -> str:
    """Data as HTML text."""
    return html.escape(str(value))


def panel(title: str, note: str, chart: str) -> str:
    """A chart with its title and a line about it."""
    about = f'<p class="facts">{note}</p>' if note else ""
    return f'<div class="panel"><h3>{text(title)}</h3>{chart}{about}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int = 1) -> str:
    """A table in a container of its own that scrolls; cells are HTML, columns from `numbers_from` are numbers."""
    cls = ["n" if i >= numbers_from else "name" for i in range(len(heads))]
    head = "".join(f'<th class="{c}">{text(name)}</th>' for c, name in zip(cls, heads, strict=True))
    body = "".join(
        "<tr>" + "".join(f'<td class="{c}">{cell}</td>' for c, cell in zip(cls, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def key(numbers: Numbers, more: str = "") -> str:
    """What the two colours mean."""
    about = numbers["texts"]
    return _KEY.format(base=text(about["base"]), top=text(about["top"]), more=more) if about else ""


def signals(numbers: Numbers) -> str:
    """Every measured number with its thresholds; numbers without one are folded away."""
    gauges = [gauge for gauge in numbers["gauges"] if gauge["of"] == "text" and gauge["known"]]
    ruled = [gauge for gauge in gauges if gauge["rules"]]
    plain = [gauge for gauge in gauges if not gauge["rules"] and not gauge["length"]]
    if not ruled and not plain:
        return ""
    sampled = max(gauge["sampled"] for gauge in gauges)
    of = max(gauge["rows"] for gauge in gauges)
    drawn = f"all {human(of)} rows" if sampled >= of else f"a uniform sample of {human(sampled)} of {human(of)} rows"
    out = (
        f'<p class="note">Distributions are drawn from {drawn}; shares beyond a threshold are counted on every row. '
        "A row is dropped by the first rule that it fails, so it may lie beyond a threshold and be counted at another. "
        "Bar heights are square roots of counts, so that rare values can be seen.</p>"
    )
    shaded = '<span class="key"><i class="kd"></i>threshold, with the side that it drops shaded</span>'
    out += key(numbers, shaded if ruled else "")
    if ruled:
        out += f'<div class="grid">{"".join(map(_gauge, ruled))}</div>'
    if plain:
        folded = f'<div class="grid">{"".join(map(_gauge, plain))}</div>'
        opened = "" if ruled else " open"
        out += f"<details{opened}><summary>Numbers without a threshold ({len(plain)})</summary>{folded}</details>"
    return out


def _gauge(gauge: Numbers) -> str:
    facts = []
    for rule in gauge["rules"]:
        side = "below" if rule["side"] == "below" else "above"
        beyond = f"{percent(rule['beyond'], gauge['rows'])} {side} {human(rule['threshold'])}"
        if not rule["drops_in_picture"]:
            beyond = "its rows were dropped before they were stored, and are not drawn"
        facts.append(
            f"<b>{text(rule['reason'])}</b> {beyond}; {human(rule['dropped'])} dropped by it ({text(rule['op'])})"
        )
    found = gauge["quantiles"]
    spread = f"median {human(found.get('p50'))}, 5–95%: {human(found.get('p5'))} to {human(found.get('p95'))}"
    spread += f", range {human(gauge['least'])} to {human(gauge['most'])}"
    unknown = gauge["rows"] - gauge["known"]
    if unknown:
        spread += f"; not known for {human(unknown)} rows"
    chart = histogram_svg(gauge, gauge["rules"], f"Distribution of {gauge['label']}")
    return panel(gauge["label"], "<br>".join([*facts, spread]), chart)


def corpus(numbers: Numbers) -> str:
    """Languages, hosts, dates and lengths."""
    parts = []
    for name, title in (("language", "Languages"), ("host", "Hosts")):
        if (found := numbers[name]) and found["top"]:
            total = found["without"]["rows"] + found["others"]["rows"] + sum(row["rows"] for row in found["top"])
            rows = [
                (
                    row["name"],
                    row["rows"],
                    row["kept"],
                    f"{human(row['rows'])} · {percent(row['rows'], total)} · {human(row['kept'])} stay",
                )
                for row in found["top"][: 12 if name == "language" else None]
            ]
            more = found["others"]["rows"] + sum(row["rows"] for row in found["top"][len(rows) :])
            count = f"{human(found['different'])}" if found["exact"] else f"more than {human(found['different'])}"
            note = f"{count} in all, {human(found['different_kept'])} of them among the rows that stay; "
            note += f"{human(more)} rows have others, {human(found['without']['rows'])} have none."
            parts.append(panel(title, note, bars_svg(rows, f"{title} by rows", 420)))
    dates = []
    for name, title in (("crawled", "Crawl date"), ("published", "Date on the page")):
        if (found := numbers[name]) and found["bins"]:
            columns = [(row["label"], row["rows"], row["kept"]) for row in found["bins"]]
            note = f"Rows by {found['by']}; {human(found['without'])} without a date"
            note += f", {human(found['earlier'])} earlier than shown." if found["earlier"] else "."
            dates.append(panel(title, note, columns_svg(columns, f"{title} by {found['by']}", 420)))
    dates += [
        panel(
            "Length of the text in characters",
            _spread(gauge, "characters"),
            histogram_svg(gauge, [], "Length of the text", 420),
        )
        for gauge in numbers["gauges"]
        if gauge["length"] and gauge["of"] == "text" and gauge["known"]
    ][-1:]
    return key(numbers) + f'<div class="grid two">{"".join(parts + dates)}</div>' if parts or dates else ""


def _spread(gauge: Numbers, unit: str) -> str:
    rows = [("all", gauge["quantiles"]), ("those that stay", gauge["quantiles_kept"])]
    told = [
        f"<b>{name}</b> median {human(q['p50'])}, 5–95%: {human(q['p5'])} to {human(q['p95'])} {unit}"
        for name, q in rows
        if q
    ]
    return "<br>".join([*told, f"mean {human(gauge['mean'])}, longest {human(gauge['most'])}"])


def duplicates(numbers: Numbers) -> str:
    """Groups by size, likeness, and the biggest with the row that stays."""
    found = numbers["duplicates"]
    if not found["groups"]:
        return ""
    sizes = [(row["label"], row["groups"], 0) for row in found["sizes"]]
    mean = found["rows"] / found["groups"]
    note = f"{human(found['groups'])} groups; {human(found['rows'])} rows were dropped for a row that stays, {human(mean)} for each."
    parts = [panel("Rows in a group", note, columns_svg(sizes, "Groups by size", 420))]
    if like := found["likeness"]:
        rules = [{"threshold": threshold, "side": "below"} for threshold in like["thresholds"]]
        note = f"Similarity of {human(like['sampled'])} dropped rows to the row that stays; median {human(like['quantiles']['p50'])}."
        chart = histogram_svg(like, rules, "Similarity to the kept row", 420).replace('class="out"', 'class="bg"')
        parts.append(panel("How alike near-duplicates are", note, chart))
    rows = []
    for group in found["biggest"]:
        row = group["row"] or {}
        reasons = ", ".join(f"{text(reason)} {human(n)}" for reason, n in group["reasons"].items())
        later = row.get("dropped_by")
        gone = f"<br>later dropped: {text(later[2])} ({text(later[1])})" if later else ""
        where = f"{text(row.get('title') or 'untitled')}<br><code>{text(row.get('url') or group['kept'])}</code>{gone}"
        rows.append((human(group["size"]), reasons, where))
    biggest = table(("rows", "dropped", "kept row"), rows, 3).replace('class="name">', ">")
    return f'<div class="grid two">{"".join(parts)}</div><h4>Biggest groups</h4>{biggest}'


def tokens(numbers: Numbers) -> str:
    """Tokens per document, fill of the sequences and use of the vocabulary."""
    gauges = [gauge for gauge in numbers["gauges"] if gauge["of"] == "tokens" and gauge["length"] and gauge["known"]]
    packed = numbers["packing"]
    parts, cards = [], []
    if packed and packed["sequences"]:
        places = packed["tokens"] + packed["padding"]
        cards += [
            (human(packed["sequences"]), f"sequences of {human(packed['seq_len'])}"),
            (percent(packed["padding"], places), f"padding: {human(packed['padding'])} of {human(places)} places"),
            (human(packed["split_documents"]), f"of {human(packed['documents'])} documents are split over sequences"),
            (percent(packed["full"], packed["sequences"]), "of the sequences are full"),
        ]
        step = 100 // len(packed["fill"])
        fill = [(f"{step * i}%", n, n) for i, n in enumerate(packed["fill"])]
        note = f"Each column holds {step}% of fill; the last one includes full sequences."
        parts.append(panel("Fill of the sequences", note, columns_svg(fill, "Sequences by fill", 420)))
    totals = numbers["totals"]
    encoded = next((stage for stage in numbers["funnel"] if stage["tokens"]["kept"] is not None), None)
    if encoded and encoded["tokens"]["kept"]:
        count = encoded["tokens"]["kept"]
        for amount, unit in (("bytes", "bytes"), ("chars", "characters")):
            if encoded[amount]["in"]:
                cards.append((human(encoded[amount]["in"] / count), f"{unit} of text a token"))
    for gauge in gauges[-1:]:
        chart = histogram_svg({**gauge, "all": gauge["all"]}, [], "Tokens per document", 420)
        parts.insert(0, panel("Tokens per document", _spread(gauge, "tokens"), chart))
    if packed and (used := packed["vocabulary"])["used"]:
        size = f" of {human(used['size'])} ids ({percent(used['used'], used['size'])})" if used["size"] else " ids"
        shares = [
            f"<b>{int(n):,}</b> most frequent ids: {percent(share, 1)} of all tokens"
            for n, share in used["share_of_top"].items()
        ]
        rows = [f"{human(used['used'])}{size} occur, {human(used['used_once'])} of them once", *shares]
        parts.append(panel("Vocabulary in use", "<br>".join(rows), ""))
    if not parts and not cards:
        return ""
    return cards_of([(human(totals["tokens"]), "tokens"), *cards]) + f'<div class="grid two">{"".join(parts)}</div>'


def cards_of(cards: Sequence[tuple[str, str]]) -> str:
    """Figures in a row."""
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{text(a)}</b><span>{text(b)}</span></div>' for a, b in cards)
        + "</div>"
    )


def losses(numbers: Numbers) -> str:
    """What was cut out of rows that stay, by reason."""
    found = [(stage, loss) for stage in numbers["funnel"] for loss in stage["losses"]]
    if not found:
        return ""
    rows = []
    for stage, loss in sorted(found, key=lambda pair: (pair[1]["unit"], -pair[1]["lost"])):
        into = stage.get(loss["unit"], {}).get("in") if loss["unit"] in ("chars", "bytes", "tokens") else None
        share = percent(loss["lost"], into) if into else "not known"
        rows.append(
            (
                text(loss["reason"]),
                text(stage["op"]),
                f"{human(loss['lost'])} {text(loss['unit'])}",
                share,
                human(loss["rows"]),
            )
        )
    return table(("cut because", "op", "lost", "share of what it took", "rows"), rows, 2)


def opt_outs(numbers: Numbers) -> str:
    """Pages that ask not to be used, before and after."""
    found = numbers["opt_outs"]
    if not found:
        return ""
    about = numbers["texts"]
    rows = [
        (
            "<b>any of these</b>" if row["signal"] == "any" else text(row["signal"]),
            human(row["rows"]),
            human(row["kept"]),
        )
        for row in found
    ]
    return table(("signal", f"rows of {about['base']}", f"rows that stay to {about['top']}"), rows)


def samples(numbers: Numbers) -> str:
    """Rows to look at, folded by reason; stops before the page gets too big and says so."""
    out, left, shown = [], SAMPLE_BYTES, 0
    groups: list[tuple[str, str, list[str]]] = []
    if numbers["kept"]:
        groups.append(
            ("Rows that stay", f"{len(numbers['kept'])} shown", [_row(item["row"]) for item in numbers["kept"]])
        )
    for group in numbers["dropped"]:
        title = f'{group["reason"]} <span class="note">{text(group["op"])}, {human(group["rows"])} dropped</span>'
        title = title.replace(group["reason"], text(group["reason"]), 1)
        groups.append((title, "", [_drop(sample) for sample in group["samples"]]))
    for title, note, rows in groups:
        inside = []
        for row in rows:
            if len(row.encode()) <= left:
                inside.append(row)
                left -= len(row.encode())
                shown += 1
        told = f' <span class="note">{note}</span>' if note else ""
        cut = (
            ""
            if len(inside) == len(rows)
            else f'<p class="note">{len(rows) - len(inside)} more are in report.json.</p>'
        )
        out.append(f"<details><summary>{title}{told}</summary>{''.join(inside)}{cut}</details>")
    if numbers["reasons"] > len(numbers["dropped"]):
        out.append(f'<p class="note">{numbers["reasons"] - len(numbers["dropped"])} rarer reasons are not shown.</p>')
    about = '<p class="note">The rows with the lowest ids, which are hashes: a fair choice, and always the same.</p>'
    return f'{about}<div class="folds">{"".join(out)}</div>' if groups else ""


def _row(row: Numbers | None) -> str:
    return f'<div class="sample">{_shown(row)}</div>'


def _drop(sample: Numbers) -> str:
    why = ""
    if sample["value"] is not None:
        why += f'<span class="why">value {human(sample["value"])}'
        why += f", threshold {human(sample['threshold'])}</span>" if sample["threshold"] is not None else "</span>"
    if sample["twin"] is None:
        if sample["evidence"]:
            why += f'<span class="why">{text(sample["evidence"])}</span>'
        return f'<div class="sample">{_shown(sample["row"])}{why}</div>'
    left = f'<div><span class="side">dropped</span>{_shown(sample["row"])}</div>'
    right = f'<div><span class="side">stays</span>{_shown(sample["twin"])}</div>'
    return f'<div class="sample">{why}<div class="pair">{left}{right}</div></div>'


def _shown(row: Numbers | None) -> str:
    """Title, address and the beginning of the text; `dir="auto"` lets right-to-left text run as it should."""
    if row is None:
        return '<p class="note">The row is not stored.</p>'
    title = f'<h3 dir="auto">{text(row["title"])}</h3>' if row.get("title") else ""
    known = [row[name] for name in ("url", "source") if row.get(name)]
    where = f'<div class="url">{"<br>".join(map(text, known))}</div>' if known else ""
    facts = [row["language"]] if row.get("language") else []
    facts += [f"{human(row['chars'])} characters"] if row.get("chars") is not None else []
    about = f'<span class="note">{text(" · ".join(facts))}</span>' if facts else ""
    body = f'<blockquote dir="auto">{text(row["text"])}</blockquote>' if row.get("text") else ""
    return f"{title}{where}{body}{about}"


def making(numbers: Numbers) -> str:
    """The chain of datasets with ops, parameters, times and versions."""
    rows = []
    for item in numbers["chain"]:
        ops = "<br>".join(f'{text(op["name"])} <span class="note">v{op["version"]}</span>' for op in item["ops"])
        sources = ", ".join(f"{text(source['name'])} ({text(source['kind'])})" for source in item["inputs"]) or "files"
        rows.append(
            (
                f"<b>{text(item['name'])}</b><br><code>{text(item['key'][:12])}</code>",
                ops,
                sources,
                "yes" if item["reproducible"] else "no",
                human(item["rows"]),
                human(item["shards"]),
                human_time(item["seconds"]),
                text(item["at"] or "–"),
            )
        )
    heads = ("dataset", "ops", "made from", "reproducible", "rows", "shards", "time", "made at")
    params = [
        f"<h4>{text(item['name'])}: {text(op['name'])} v{op['version']}</h4><p><code>{text(op['params'])}</code></p>"
        for item in numbers["chain"]
        for op in item["ops"]
    ]
    versions = " · ".join(f"{text(name)} {text(version)}" for name, version in numbers["chain"][-1]["versions"].items())
    files = ""
    if sources := numbers["sources"]:
        kinds = ", ".join(f"{n:,} {text(kind)}" for kind, n in sources["formats"].items())
        files = f"<p>The crawl: {human(sources['files'])} files ({kinds}), {human_bytes(sources['bytes'])}, {human(sources['records'])} records.</p>"
    fold = f"<details><summary>Parameters of every op</summary>{''.join(params)}</details>"
    return f'{files}{table(heads, rows, 4)}<p class="note" style="margin-top:12px">{versions}</p>{fold}'
