"""The command line.

Exit codes: 0 all well, 1 some documents or pages failed, 2 wrong usage or an index or model that cannot be used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .errors import UsageError, VisragError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from .index import Hit, Index
    from .ingest import Progress, Source, Summary
    from .records import Failure

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Prints a VisragError on one line, without a traceback, and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VisragError as error:
            click.echo(f"visrag: {error}", err=True)
            ctx.exit(2)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Find the page that answers a question, and show where on the page the answer stands."""


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order given."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_index_option = click.option(
    "--index", "path", default="index", show_default=True, metavar="DIR", envvar="VISRAG_INDEX", help="The index."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_device_option = click.option("--device", metavar="DEVICE", help="cpu or cuda. [default: cuda where there is one]")
_read_options = _options(
    click.option(
        "--ocr",
        type=click.Choice(["auto", "off", "always"]),
        default="auto",
        show_default=True,
        help="Read the text in pictures.",
    ),
    click.option("--renderer", type=click.Choice(["pdfium", "poppler"]), default="pdfium", show_default=True),
    click.option(
        "--route",
        type=click.Choice(["auto", "vision", "text", "both"]),
        default="auto",
        show_default=True,
        help="Which encoder a page goes to, in an index with a vision model.",
    ),
    click.option("--password", "passwords", multiple=True, help="A password to open documents with; repeatable."),
    click.option("--link", is_flag=True, help="Keep the paths of the files, not copies of them."),
    click.option("--jobs", type=click.IntRange(1), help="Rendering processes. [default: one a core, up to 4]"),
    click.option(
        "--page-timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="For one page, OCR included.",
    ),
)
_ingest_options = _options(
    click.option("--tag", "tags", multiple=True, metavar="K=V", help="A tag for these documents; repeatable."),
    click.option("--text", metavar="MODEL", help="Text model: a hub id or a folder. [default: all-MiniLM-L6-v2]"),
    click.option("--vision", metavar="MODEL", help="Vision model: a hub id or a folder. [default: none]"),
    _device_option,
    _read_options,
)


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@_index_option
@_ingest_options
@click.option("--sync", is_flag=True, help="Remove documents whose file has gone from the folder.")
@_json_option
def ingest(
    paths: tuple[Path, ...], path: str, tags: tuple[str, ...], sync: bool, as_json: bool, **options: Any
) -> None:
    """Bring PDFs, images, text documents and folders of them into the index."""
    with _open(path, options) as index, _progress() as progress:
        summary = index.ingest(
            *paths, tags=_pairs(tags) if tags else None, sync=sync, progress=progress, settings=_settings(options)
        )
    _finish(summary, as_json)


@main.command()
@click.argument("inbox", type=click.Path(exists=True, file_okay=False, path_type=Path))
@_index_option
@_ingest_options
def watch(inbox: Path, path: str, tags: tuple[str, ...], **options: Any) -> None:
    """Ingest whatever is dropped into INBOX, until ctrl-C."""
    with _open(path, options) as index:
        click.echo(f"watching {inbox}, ctrl-C ends it", err=True)
        try:
            for summary in index.watch(inbox, _pairs(tags) if tags else None, _settings(options)):
                _print_summary(summary)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)


@main.command()
@click.argument("question")
@_index_option
@click.option("-k", default=5, show_default=True, type=click.IntRange(1), help="How many pages.")
@click.option("--document", "documents", multiple=True, metavar="NAME", help="Only in this document; repeatable.")
@click.option("--tag", "tags", multiple=True, metavar="K=V", help="Only in documents with this tag; repeatable.")
@click.option("--rank", type=click.Choice(["fusion", "maxsim", "fulltext"]), default="fusion", show_default=True)
@click.option("--timings", is_flag=True, help="Print where the time went.")
@_device_option
@_json_option
def search(
    question: str,
    path: str,
    documents: tuple[str, ...],
    tags: tuple[str, ...],
    timings: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the pages that answer QUESTION."""
    with _open(path, options) as index:
        answer = index.answer(question, options["k"], documents or None, _pairs(tags), options["rank"])
    if as_json:
        click.echo(json.dumps(answer.as_dict(), ensure_ascii=False))
    else:
        _print_hits(answer.hits)
    if timings:
        steps = [f"start {_since_start() - sum(answer.timings.values()):.2f} s"]
        steps += [f"{name} {seconds:.2f} s" for name, seconds in answer.timings.items()]
        click.echo(", ".join(steps), err=True)


@main.command()
@click.argument("question")
@_index_option
@click.option("--document", required=True, metavar="NAME")
@click.option("--page", required=True, type=click.IntRange(1), metavar="N")
@click.option("--token", metavar="T", help="The map of one word of the question, not of the whole.")
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The PNG to write."
)
@_device_option
@_json_option
def highlight(
    question: str, path: str, document: str, page: int, token: str | None, output: Path, as_json: bool, **options: Any
) -> None:
    """Write a page as a PNG, with the evidence for QUESTION highlighted."""
    with _open(path, options) as index:
        result = index.highlight(question, document, page, token)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        result.image.save(output, "PNG")
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from error
    if as_json:
        regions = [{"box": region.box, "score": region.score, "text": region.text} for region in result.regions]
        click.echo(json.dumps({"image": str(output), "regions": regions}, ensure_ascii=False))
        return
    click.echo(output)
    for number, region in enumerate(result.regions, 1):
        click.echo(f"  {number}  {region.text}")


@main.command()
@_index_option
@_json_option
def documents(path: str, as_json: bool) -> None:
    """List the documents in the index."""
    with _open(path) as index:
        rows = [
            {
                "document": d.name,
                "state": d.state,
                "pages": d.pages,
                "indexed": d.indexed,
                "failed": d.failed,
                "tags": d.tags,
            }
            for d in index.documents()
        ]
    _print_rows(rows, as_json)


@main.command()
@_index_option
@_json_option
def failures(path: str, as_json: bool) -> None:
    """List the documents and pages that are not in the index, and why."""
    with _open(path) as index:
        rows = _failure_rows(index.failures())
    _print_rows(rows, as_json)


@main.command()
@click.argument("names", nargs=-1, required=True)
@_index_option
@_json_option
def remove(names: tuple[str, ...], path: str, as_json: bool) -> None:
    """Remove documents from the index."""
    with _open(path) as index:
        for name in names:
            index.remove(name)
    if as_json:
        click.echo(json.dumps({"removed": names}, ensure_ascii=False))


@main.command()
@_index_option
@_read_options
@_device_option
@_json_option
def retry(path: str, as_json: bool, **options: Any) -> None:
    """Ingest once more the documents that failed, in whole or in part."""
    with _open(path, options) as index, _progress() as progress:
        summary = index.retry(progress, _settings(options))
    _finish(summary, as_json)


@main.command()
@click.argument("questions", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--beir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="A BEIR collection in place of QUESTIONS; its passages are indexed on first use.",
)
@click.option(
    "--index",
    "path",
    metavar="DIR",
    envvar="VISRAG_INDEX",
    help="The index. [default: index; with --beir a folder in the cache]",
)
@click.option("--rank", type=click.Choice(["fusion", "maxsim", "fulltext"]), default="fusion", show_default=True)
@_device_option
@_json_option
def evaluate(questions: Path | None, beir: Path | None, path: str | None, as_json: bool, **options: Any) -> None:
    """Measure the answers to QUESTIONS, a JSONL file of questions whose pages are known."""
    from .evaluate import evaluate_beir, evaluate_questions

    if (questions is None) == (beir is None):
        raise UsageError("give a file of questions, or --beir FOLDER")
    with _progress() as progress:
        if beir is not None:
            report = evaluate_beir(beir, path, options["rank"], options["device"], progress)
        elif questions is not None:
            with _open(path or "index", options) as index:
                report = evaluate_questions(index, questions, options["rank"], progress)
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print_report(report)


# Options


def _open(path: str, options: dict[str, Any] | None = None) -> Index:
    from .index import Index

    options = options or {}
    return Index(path, **{key: options[key] for key in ("text", "vision", "device") if key in options})


def _settings(options: dict[str, Any]) -> Any:
    from .settings import IngestSettings

    chosen = {key: options[key] for key in ("ocr", "renderer", "route", "link", "passwords", "page_timeout")}
    if options["jobs"]:
        chosen["jobs"] = options["jobs"]
    return IngestSettings(**chosen)


def _pairs(tags: Sequence[str]) -> dict[str, str]:
    """K=V strings as a dictionary. Raises UsageError."""
    pairs = {}
    for tag in tags:
        key, sign, value = tag.partition("=")
        if not key or not sign:
            raise UsageError(f"--tag {tag}: give it as K=V")
        pairs[key] = value
    return pairs


# Output


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
def _progress() -> Iterator[Progress]:
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


def _finish(summary: Summary, as_json: bool) -> None:
    """Print what an ingest did; exit with 1 if something failed."""
    if as_json:
        click.echo(json.dumps(_summary_dict(summary), ensure_ascii=False))
    else:
        _print_summary(summary)
    if summary.failures:
        sys.exit(1)


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
        "failures": _failure_rows(summary.failures),
    }


def _print_summary(summary: Summary) -> None:
    parts = [f"{summary.documents} documents ingested, {summary.pages} pages in {summary.seconds:.1f} s"]
    parts += [f"{summary.unchanged} unchanged"] if summary.unchanged else []
    parts += [f"{summary.removed} removed"] if summary.removed else []
    click.echo(", ".join(parts), err=True)
    if summary.failures:
        _print_rows(_failure_rows(summary.failures), as_json=False)


def _failure_rows(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    return [{"document": f.document, "page": f.page, "reason": f.reason, "message": f.message} for f in failures]


def _print_hits(hits: Sequence[Hit]) -> None:
    if not hits:
        click.echo("nothing found", err=True)
    for hit in hits:
        head = f"{hit.document}, page {hit.page}"
        click.echo(f"{hit.rank:2}  {hit.score:6.3f}  {click.style(head, bold=True)}")
        if hit.snippet:
            click.echo(f"            {hit.snippet}")


def _print_rows(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
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
    return "" if value is None else str(value)


def _print_report(report: dict[str, Any]) -> None:
    """An evaluation as a table: a row for all questions, one a scope and one a type."""
    rows = [{"questions of": "all", **report}]
    rows += [{"questions of": f"scope {name}", **row} for name, row in report.get("by_scope", {}).items()]
    rows += [{"questions of": f"type {name}", **row} for name, row in report.get("by_type", {}).items()]
    keys = ["questions of", "questions", "ndcg@5", "ndcg@10", "recall@1", "recall@5", "mrr"]
    latency = "latency_ms"
    _print_rows(
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


def _figure(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _since_start() -> float:
    """Seconds since this process was started."""
    import time

    import psutil

    return time.time() - float(psutil.Process().create_time())
