"""What the commands print: progress, hits, tables."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from .check import Check
    from .encode.catalogue import KnownModel
    from .hits import Hit
    from .info import Info
    from .ingest import Progress, Summary
    from .queue import Queue, Status
    from .records import Document, Failure
    from .sources import Source

SHOWN = 20  # documents that a status lists
NO_WORKER = 20.0  # seconds after which it is said that nobody works


class _IngestBar:
    """An ingest's progress by bytes, so that the time left is known before every document has been opened."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task: Any = None
        self._pages = 0
        self._told: dict[str, float] = {}

    def start(self, size: int) -> None:
        self._task = self._bar.add_task("", total=size or None, pages=0)

    def page(self, source: Source, pages: int) -> None:
        self._pages += 1
        share = source.size / pages if pages else 0.0
        self._told[source.name] = self._told.get(source.name, 0.0) + share
        self._bar.update(self._task, advance=share, pages=self._pages, description=source.name)

    def finish(self, source: Source) -> None:
        self._bar.update(self._task, advance=source.size - self._told.pop(source.name, 0.0))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress bar on standard error: what is being read, pages, pages/s, time left. Nothing where that is no
    terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            pages, seconds = task.fields.get("pages", 0), task.elapsed or 0.0
            return Text(f"{pages} pages, {pages / seconds if seconds else 0:.1f}/s")

    console = Console(stderr=True)
    columns = (BarColumn(), TaskProgressColumn(), Rate(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        yield _IngestBar(bar)


def wait_for(queue: Queue, names: Sequence[str]) -> None:
    """Until these documents have left the queue, with a bar where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=len(names))
        wanted, begun, warned = set(names), time.monotonic(), False
        while True:
            status = queue.status()
            jobs = [job for job in status.jobs if job.order.name in wanted]
            working = [job for job in jobs if job.document.media_type]
            pages = sum(job.document.indexed + job.document.failed for job in working)
            known = sum(job.document.pages for job in working)
            doing = f"pages {pages} of {known} in {_count(len(working), 'document')}" if working else "waiting"
            bar.update(task, completed=len(names) - len(jobs), description=doing)
            if not jobs:
                return
            idle = not working and not any(load.held for load in status.queues.values())
            if idle and not warned and time.monotonic() - begun > NO_WORKER:
                console.print("nobody works: start visrag worker ingest render, and visrag worker text")
                warned = True
            time.sleep(0.5)


def print_documents(documents: Sequence[Document], failures: Sequence[Failure], as_json: bool) -> None:
    """Print how documents that went through the queue are now."""
    states = Counter(document.state for document in documents)
    pages = sum(document.indexed for document in documents)
    if as_json:
        found = {"documents": dict(states), "pages": pages, "failures": failure_rows(failures)}
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    parts = [f"{count} {state}" for state, count in sorted(states.items())]
    click.echo(f"documents: {', '.join(parts) or 'none'}; {_count(pages, 'page')}", err=True)
    if failures:
        print_rows(failure_rows(failures), as_json=False)


def print_status(status: Status, as_json: bool, clear: bool = False) -> None:
    """Print what is in the queue. ``clear``: in place of what the terminal shows."""
    found = status.as_dict()
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    if clear:
        click.clear()
    click.echo("documents: " + ", ".join(f"{count} {state}" for state, count in found["documents"].items()))
    if found["queues"]:
        click.echo()
        print_rows([{"step": name, **load} for name, load in found["queues"].items()], as_json=False)
    if found["working"]:
        now = time.time()
        rows = [
            {
                "document": row["document"],
                "pages": row["pages"],
                "done": row["indexed"] + row["failed"],
                "failed": row["failed"],
                "since": f"{now - row['queued']:.0f} s",
            }
            for row in found["working"][:SHOWN]
        ]
        click.echo()
        print_rows(rows, as_json=False)
        if len(found["working"]) > SHOWN:
            click.echo(f"and {len(found['working']) - SHOWN} more")


def print_ingest(summary: Summary, as_json: bool) -> None:
    """Print what an ingest did."""
    if as_json:
        click.echo(json.dumps(_summary_dict(summary), ensure_ascii=False))
    else:
        print_summary(summary)


def _summary_dict(summary: Summary) -> dict[str, Any]:
    rate = summary.pages / summary.seconds if summary.seconds else 0.0
    return {
        "documents": summary.documents,
        "pages": summary.pages,
        "unchanged": summary.unchanged,
        "removed": summary.removed,
        "seconds": round(summary.seconds, 2),
        "pages_per_s": round(rate, 2),
        "peak_memory_mb": summary.peak_memory_mb,
        "failures": failure_rows(summary.failures),
    }


def print_summary(summary: Summary) -> None:
    done = f"{_count(summary.documents, 'document')} ingested, {_count(summary.pages, 'page')}"
    parts = [f"{done} in {summary.seconds:.1f} s"]
    parts += [f"{summary.unchanged} unchanged"] if summary.unchanged else []
    parts += [f"{summary.removed} removed"] if summary.removed else []
    click.echo(", ".join(parts), err=True)
    if summary.failures:
        print_rows(failure_rows(summary.failures), as_json=False)


def print_check(check: Check, as_json: bool) -> None:
    """Print what a check found, and what came of its repair."""
    found = check.as_dict()
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    counts = f"{_count(check.documents, 'document')}, {_count(check.pages, 'page')} in {check.seconds:.1f} s"
    repaired = len(check.damage) - len(check.left)
    done = f", {repaired} of them repaired" if repaired else ""
    click.echo(f"checked {counts}: {_count(len(check.damage), 'damage')}{done}", err=True)
    if found["damage"]:
        print_rows(found["damage"], as_json=False)
    for orphan in check.orphans:
        click.echo(f"nothing needs {orphan}", err=True)
    for note in check.notes:
        click.echo(_printable(note), err=True)
    if check.left and not repaired:
        click.echo("visrag check --repair makes good what it can", err=True)


def print_info(info: Info, as_json: bool) -> None:
    found = info.as_dict()
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    from .maxsim.native import NUMPY, why_numpy

    click.echo(f"{_printable(info.index)}: {_count(info.documents, 'document')}, {_count(info.pages, 'page')}")
    told = [f"{kind} model {_printable(name)}" for kind, name in info.models.items()]
    told += [f"at most {info.visual_tokens} image tokens a page"] if info.visual_tokens else []
    click.echo(", ".join(told) or "no model yet")
    if not info.kernel:
        return
    pages = max(1, info.pages)
    print_rows(
        [
            {
                "leg": leg.leg,
                "pages": leg.pages,
                "vectors": leg.vectors,
                "dimensions": leg.dim,
                "codes a page": size_text(leg.codes / pages),
                "bits a page": size_text(leg.bits / pages),
            }
            for leg in info.legs
        ],
        as_json=False,
    )
    click.echo(", ".join(f"{name} {size_text(size)}" for name, size in info.bytes.items()))
    memory = size_text(found["in_memory_per_page"])
    click.echo(f"a page takes {size_text(found['bytes_per_page'])} on the disk, and {memory} of bits in memory")
    how = f"numpy, which is slow: {why_numpy()}" if info.kernel == NUMPY else info.kernel
    click.echo(f"MaxSim: {how}, {_count(info.threads, 'thread')}")


def print_models(models: Sequence[KnownModel], as_json: bool) -> None:
    """The tables of models, in 80 columns, or all fields of each as JSON."""
    if as_json:
        click.echo(json.dumps([asdict(model) for model in models], ensure_ascii=False))
        return
    for kind, row in (("vision", _vision_row), ("text", _text_row)):
        print_rows([row(model) for model in models if model.kind == kind], as_json=False)
        click.echo()
    click.echo("+ needs visrag[colpali]   - cannot be loaded   * its base has another licence")
    click.echo("dim: numbers of a vector   page: vectors of a page's picture, at most")
    click.echo("published nDCG × 100: ViDoRe V2 @5 and V3 (public) @10, NanoBEIR, SciFact @10")
    click.echo("visrag models NAME shows all that is known of one, with its sources")


def _vision_row(model: KnownModel) -> dict[str, Any]:
    cells = {"dim": model.dim, "page": model.image_tokens, "V2": _score(model.vidore_v2), "V3": _score(model.vidore_v3)}
    return {"vision model": model.id, "": _needs(model), **cells, "licence": _licence(model)}


def _text_row(model: KnownModel) -> dict[str, Any]:
    cells = {"dim": model.dim, "NanoBEIR": _score(model.nano_beir), "SciFact": _score(model.scifact)}
    return {"text model": model.id, "": _needs(model), **cells, "licence": _licence(model)}


def _needs(model: KnownModel) -> str:
    return {"sentence-transformers": "", "colpali-engine": "+"}.get(model.library, "-")


def _licence(model: KnownModel) -> str:
    return (model.licence or "") + ("*" if model.base_licence else "")


def _score(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.1f}"


def print_model(model: KnownModel, as_json: bool) -> None:
    """All that is known of one model."""
    found = asdict(model)
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    sources = found.pop("sources")
    rows = {name.replace("_", " "): value for name, value in found.items() if value not in (None, False)}
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        click.echo(f"{name:{width}}{'yes' if value is True else value}")
    for number, source in enumerate(sources):
        click.echo(f"{'' if number else 'sources':{width}}{source}")


def size_text(size: float) -> str:
    """A number of bytes as people read it, in powers of 1,000."""
    for unit in ("B", "KB", "MB", "GB"):
        if size < 999.5 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if size >= 99.5 or unit == "B" else f"{size:.3g} {unit}"


def failure_rows(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    return [{"document": f.document, "page": f.page, "reason": f.reason, "message": f.message} for f in failures]


def print_hits(hits: Sequence[Hit]) -> None:
    if not hits:
        click.echo("nothing found", err=True)
    for hit in hits:
        head = _printable(f"{hit.document}, page {hit.page}")
        click.echo(f"{hit.rank:2}  {hit.score:6.3f}  {click.style(head, bold=True)}")
        if hit.snippet:
            click.echo(f"            {_printable(hit.snippet)}")


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Rows with the same keys, as a JSON list or as a table."""
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    if not rows:
        click.echo("none", err=True)
        return
    cells = [[str(key) for key in rows[0]]] + [[_cell(value) for value in row.values()] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return "" if value is None else _printable(str(value))


def _printable(text: str) -> str:
    """A text without what would move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def print_report(report: dict[str, Any]) -> None:
    """An evaluation as tables: a row for all questions, one a scope and one a type; how well regions show answers."""
    rows = [{"questions of": "all", **report}]
    rows += [{"questions of": f"scope {name}", **row} for name, row in report.get("by_scope", {}).items()]
    rows += [{"questions of": f"type {name}", **row} for name, row in report.get("by_type", {}).items()]
    keys = ["questions of", "questions", "ndcg@5", "ndcg@10", "recall@1", "recall@5", "mrr"]
    latency = "latency_ms"
    print_rows(
        [
            {
                **{key: _figure(row.get(key)) for key in keys},
                "p50 ms": row[latency]["p50"],
                "p95 ms": row[latency]["p95"],
            }
            for row in rows
            if latency in row
        ],
        as_json=False,
    )
    if reduced := report.get("reduced"):
        click.echo("\nwhat visrag ingest --pool N and --dim N would lose:")
        print_rows([_reduced_row(row) for row in reduced], as_json=False)
    if shown := report.get("highlighting"):
        click.echo(f"\nhighlighting, {_count(shown['questions'], 'question')} with an answer on the page:")
        print_rows([{key: _figure(value) for key, value in row.items()} for row in shown["curve"]], as_json=False)


def _reduced_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``visrag.losses`` as it is printed: nDCG@5 and what was lost of it, by scope."""
    cells = {"pool": row["pool"], "dim": row["dim"] or "all", "bytes a page": row["bytes_per_page"]}
    for scope, found in row["by_scope"].items():
        cells[f"ndcg@5 {scope}"] = _figure(found["ndcg@5"])
        cells[f"loss {scope}"] = _figure(row["loss"][scope]["ndcg@5"])
    return {**cells, "answers held": _figure(row["held"])} if "held" in row else cells


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def since_start() -> float:
    """Seconds since this process was started."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        import psutil

        return time.time() - float(psutil.Process().create_time())
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])  # proc(5): starttime, in ticks since boot
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
