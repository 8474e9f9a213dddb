"""The table of an entry: each row's figures next to the published ones, for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from lseg_utils.files import write_aside
from lseg_utils.html_page import paragraph, table, write_page
from lseg_utils.ledger import Ledger
from lseg_utils.results import text_table, write_json
from paper.entries import DATA, Entry, Row, entries
from paper.running import Plan, ledger_of

MARK = "†"
KINDS = {"": "trained", "released": "released files tested", "given": "given files tested"}  # by Plan.weights
NEEDS = {
    "ade20k": "ADE20K (python prepare_ade20k.py)",
    "pascal": "VOC2012 with SegmentationClassAug, as for HSNet",
    "coco": "COCO2014 with annotations, as for HSNet",
    "fss": "FSS-1000, as for HSNet",
}
HEADER = ("network", "measure", "here", "published", "difference", "source of the published figure")


def newest(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last record of each seed and fold."""
    return list({(record["seed"], record["fold"]): record for record in records}.values())


def measured(entry: Entry, records: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Measure -> its value for each seed. A mean over folds counts where a seed has all of them."""
    if len(entry.folds) == 1:
        names = list(records[0]["measures"]) if records else []
        return {name: [record["measures"][name] for record in records] for name in names}
    by_seed: dict[int, dict[int, dict[str, float]]] = {}
    for record in records:
        by_seed.setdefault(record["seed"], {})[record["fold"]] = record["measures"]
    found = {f"fold {f}": [folds[f]["mIoU"] for folds in by_seed.values() if f in folds] for f in entry.folds}
    whole = [folds.values() for folds in by_seed.values() if len(folds) == len(entry.folds)]
    found["mean"] = [mean(one["mIoU"] for one in folds) for folds in whole]
    found["FB-IoU"] = [mean(one["FB-IoU"] for one in folds) for folds in whole]
    return {name: values for name, values in found.items() if values}


def source_state(record: dict[str, Any]) -> str:
    """The commit of a run, marked where files had been changed; "unknown" without git."""
    git = record["identity"]["git"]
    return git["commit"][:12] + (" with changes" if git["changed"] else "") if git else "unknown"


def ran(entry: Entry, plan: Plan) -> list[tuple[Row, str, Ledger]]:
    """Every row that has run in ``plan.folder``, how (one of ``KINDS``), and its ledger."""
    found = []
    for row in entry.rows:
        for weights, kind in KINDS.items():
            if ledger := ledger_of(replace(plan, weights=weights).row_folder(entry, row)):
                found.append((row, kind, ledger))
    return found


def report(entry: Entry, plan: Plan) -> str:
    """Write ``table.txt``, ``table.json`` and ``report.html`` of all that ran in ``plan.folder``; return the text."""
    found = ran(entry, plan)
    records = {ledger.path: newest(ledger.records) for _, _, ledger in found}
    # The state of the last run is that of the table; figures from any other state are marked.
    states = list(dict.fromkeys(source_state(record) for own in records.values() for record in own))
    last = max(records, key=lambda path: path.stat().st_mtime_ns, default=None)
    now = source_state(records[last][-1]) if last and records[last] else ""
    cells, content, settings = [], [], []
    for row, kind, ledger in found:
        own = records[ledger.path]
        figures = {
            name: {"values": values, "mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}
            for name, values in measured(entry, own).items()
        }
        facts = {"row": row.name, "network": row.title, "kind": kind, "settings": ledger.header}
        content.append({**facts, "published": dict(row.published), "measured": figures, "runs": own})
        title = row.title if kind == KINDS[""] else f"{row.title} ({kind})"
        # What makes a run another experiment than the published one, such as few-shot training.
        unlike = {record["identity"].get("setting", "zero-shot"): None for record in own}
        settings += [f"{title}: {setting}" for setting in unlike if setting != "zero-shot"]
        mark = "" if {source_state(record) for record in own} <= {now} else f" {MARK}"
        for name, figure in figures.items():
            text = f"{figure['mean']:.2f}"
            if figure["deviation"] is not None:
                text += f" ± {figure['deviation']:.2f} ({len(figure['values'])} seeds)"
            known, source = row.published.get(name, (None, ""))
            compared = ("", "") if known is None else (f"{known:.2f}", f"{figure['mean'] - known:+.2f}")
            cells.append((title + mark, name, text, *compared, source))
    warning, notes = [plan.warning] if plan.warning else [], settings
    if len(states) > 1:
        notes.append(f"{MARK} contains runs of another state of the source than {now}: {', '.join(states)}")
    elif states:
        notes.append(f"source: {states[0]}")
    for name in ("device", "precision", "protocol", "labels_sha256"):
        values = dict.fromkeys(record["identity"].get(name) for own in records.values() for record in own)
        known_values = "; ".join(value for value in values if value)
        notes += [f"{name.replace('_', ' ')}: {known_values}"] if known_values else []
    shown = text_table(HEADER, cells) if cells else "nothing has run yet"
    text = "\n".join([*warning, entry.title, entry.shows, "", shown, "", *notes])
    folder = plan.folder / entry.name
    with write_aside(folder / "table.txt") as aside:
        aside.write_text(text + "\n", encoding="utf-8")
    parts = [paragraph(line) for line in (*warning, entry.shows)]
    parts.append(table(HEADER, cells, "Here and as published") if cells else paragraph("Nothing has run yet."))
    write_page(folder / "report.html", entry.title, [*parts, *map(paragraph, notes)])
    head = {"warning": plan.warning} if plan.warning else {}
    head |= {"entry": entry.name, "title": entry.title, "states": states}
    write_json(folder / "table.json", {**head, "rows": content})
    return text


def listing(folder: Path) -> list[dict[str, Any]]:
    """Every row of every entry as plain data: what was published, what it needs, what ran here."""
    found = []
    for entry in entries():
        finished = ran(entry, Plan(folder))
        for row in entry.rows:
            state = []
            for _, kind, ledger in (one for one in finished if one[0] is row):
                records = newest(ledger.records)
                whole = len({record["seed"] for record in records}) * len(entry.folds)
                word = f"dry run, {kind}" if ledger.header.get("warning") else kind
                state.append(f"{word}: {len(records)} of {whole}")
            published = {name: {"percent": value, "source": text} for name, (value, text) in row.published.items()}
            facts = {"entry": entry.name, "alias": entry.alias, "title": entry.title, "shows": entry.shows}
            facts |= {"row": row.name, "network": row.title, "backbone": row.backbone, "published": published}
            facts |= {"dataset": entry.dataset, "released": row.released, "gpu_hours": entry.hours(row)}
            found.append(facts | {"here": "; ".join(state) or "not run"})
    return found


def describe(rows: Sequence[dict[str, Any]], folder: Path) -> str:
    """The listing for people."""
    parts, header = [], ("row", "network", "backbone", "published (source)", "GPU h", "here")
    short = {text: tag for tag, text in DATA["sources"].items()}
    for entry in entries():
        parts.append(f"{entry.name} ({entry.alias})  {entry.title}\n  {entry.shows}")
        cells = []
        for row in (row for row in rows if row["entry"] == entry.name):
            figures = []  # those next to each other that are from the same source share its tag
            for source, known in groupby(row["published"], key=lambda name: row["published"][name]["source"]):
                texts = [f"{name} {row['published'][name]['percent']}" for name in known]
                figures.append(f"{', '.join(texts)} ({short[source]})")
            hours = "" if row["gpu_hours"] is None else f"{row['gpu_hours']:.1f}"
            cells.append((row["row"], row["network"], row["backbone"], "; ".join(figures), hours, row["here"]))
        if cells:
            parts.append("\n".join(f"  {line}" for line in text_table(header, cells).splitlines()))
        if entry.dataset:
            trains = any(row.trains for row in entry.rows)
            weights = "for training, CLIP and ImageNet weights (downloaded)" if trains else "the released checkpoint"
            parts.append(f"  needs: {NEEDS[entry.dataset]}; {weights}")
        parts.append("")
    parts += [DATA["nothing_to_run"], "sources of the published figures:"]
    parts += [f"  {tag}: {text}" for tag, text in DATA["sources"].items()]
    parts.append(f"GPU h: all folds, one seed, one {DATA['cost']['gpu']}; {DATA['cost']['method']}")
    return "\n".join([*parts, f"runs are kept in {folder}"])
