"""The report's sections that list: losses, opt-outs, rows to look at, and how it all was made."""

from __future__ import annotations

from gristmill.dataops.report.draw import human, human_bytes, human_time, percent
from gristmill.dataops.report.markup import Numbers, table, text

SAMPLE_BYTES = 1_600_000  # of HTML for rows: what keeps the page under 3 MB whatever is in them


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
    return table(("cut because", "op", "lost", "share of what the op took", "rows"), rows, "..nnn")


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
    return table(("signal", f"rows of {about['base']}", f"rows that stay to {about['top']}"), rows, ".nn")


def samples(numbers: Numbers) -> str:
    """Rows to look at, folded by reason; stops before the page gets too big and says so."""
    groups = [("Rows that stay", f"{len(numbers['kept'])} shown", [_row(item["row"]) for item in numbers["kept"]])]
    groups += [
        (group["reason"], f"{group['op']}, {human(group['rows'])} dropped", [_drop(sample) for sample in group["samples"]])
        for group in numbers["dropped"]
    ]
    folds, left = [], SAMPLE_BYTES
    for title, note, rows in groups:
        inside = []
        for row in rows:
            if len(row.encode()) <= left:
                inside.append(row)
                left -= len(row.encode())
        if len(inside) < len(rows):
            inside.append(f'<p class="note">{len(rows) - len(inside)} more are in report.json.</p>')
        if rows:
            named = f'{text(title)} <span class="note">{text(note)}</span>'
            folds.append(f"<details><summary>{named}</summary>{''.join(inside)}</details>")
    if not folds:
        return ""
    rarer = numbers["reasons"] - len(numbers["dropped"])
    about = "The rows with the lowest ids, which are hashes: a fair choice, and always the same."
    about += f" {rarer} rarer reasons are not shown." if rarer else ""
    return f'<p class="note">{about}</p><div class="folds">{"".join(folds)}</div>'


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
    return f'{files}{table(heads, rows, "....nnn.")}<p class="note" style="margin-top:12px">{versions}</p>{fold}'
