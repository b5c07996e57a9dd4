"""The command line.

Exit codes: 0 all well, 1 some documents or pages failed, 2 wrong usage or an index or model that cannot be used,
130 stopped by ctrl-C.
"""

from __future__ import annotations

import atexit
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .errors import UsageError, VisragError
from .server.commands import keys, serve
from .settings import LEAST_TOKENS, ModelSettings, read_passwords, read_tags
from .show import (
    failure_rows,
    print_check,
    print_documents,
    print_hits,
    print_info,
    print_ingest,
    print_model,
    print_models,
    print_report,
    print_rows,
    print_status,
    print_summary,
    progress_bar,
    since_start,
    size_text,
    wait_for,
)

if TYPE_CHECKING:
    from .index import Index
    from .ingest import Summary
    from .store import Store

F = TypeVar("F", bound=Callable[..., Any])


class _Group(click.Group):
    """Ends with one line and no traceback: exit code 2 for a VisragError, 130 for ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VisragError as error:
            click.echo(f"visrag: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            kept = ctx.invoked_subcommand in ("ingest", "retry", "copy", "check")
            goes_on = ": the documents that were done are in the index, and the same command goes on from there"
            click.echo(f"stopped{goes_on if kept else ''}", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Find the page that answers a question, and show where on the page the answer stands."""
    # The libraries of models make a million objects: for 2 s the garbage collector would look through them at the end.
    atexit.register(gc.freeze)


main.add_command(serve)
main.add_command(keys)


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
_password_options = _options(
    click.option("--password", "passwords", multiple=True, help="A password to open documents with; repeatable."),
    click.option(
        "--password-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Passwords, one a line (UTF-8): unlike those of --password, no list of processes shows them.",
    ),
)
_limit_options = _options(
    click.option("--jobs", type=click.IntRange(1), help="Rendering processes. [default: one a core, up to 8]"),
    click.option(
        "--page-timeout",
        type=click.FloatRange(0, 86_400, min_open=True),
        default=60.0,
        show_default=True,
        metavar="SECONDS",
        help="For one page, OCR included.",
    ),
    click.option("--memory", type=click.IntRange(128), metavar="MB", help="Of one rendering process. [default: 2048]"),
    click.option("--max-pixels", type=click.IntRange(1), help="Of a page of an image file. [default: 180000000]"),
    click.option("--max-words", type=click.IntRange(1), help="Of a page. [default: 100000]"),
    click.option("--max-pages", type=click.IntRange(1), help="Of a document. [default: 50000]"),
)
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
    _password_options,
    click.option("--link", is_flag=True, help="Keep the paths of the files, not copies of them."),
    _limit_options,
)
_POOL = "Keep one vector of a page in N, of a new index: 2 or 3 make it smaller. [default: all]"
_DIM = "Give the vectors of text N dimensions, a multiple of 8, in a new index. [default: all]"
_FLOAT16 = "Keep the vectors of a new index as float16, too, and score the pages found by them: 3 times the bytes."
_VISUAL_TOKENS = "Image tokens of a page, at most, of a new vision model such as ColQwen2. [default: the model's]"
_reduce_options = _options(
    click.option("--visual-tokens", type=click.IntRange(LEAST_TOKENS), metavar="N", help=_VISUAL_TOKENS),
    click.option("--pool", type=click.IntRange(1), metavar="N", help=_POOL),
    click.option("--dim", type=click.IntRange(8), metavar="N", help=_DIM),
    click.option("--float16", is_flag=True, help=_FLOAT16),
)


def _loss_option(name: str, least: int) -> Callable[[F], F]:
    told = f"Also print what visrag ingest --{name} N would lose; repeatable."
    return click.option(f"--{name}", f"{name}s", type=click.IntRange(least), multiple=True, metavar="N", help=told)


_ingest_options = _options(
    click.option("--tag", "tags", multiple=True, metavar="K=V", help="A tag for these documents; repeatable."),
    click.option("--text", metavar="MODEL", help="Text model: a hub id or a folder. [default: all-MiniLM-L6-v2]"),
    click.option("--vision", metavar="MODEL", help="Vision model: a hub id or a folder. [default: none]"),
    _reduce_options,
    _device_option,
    _read_options,
)


_broker_option = click.option(
    "--broker", metavar="URL", help="The queue's Redis. [default: VISRAG_BROKER, else redis://127.0.0.1:6379/0]"
)


@main.command()
@click.argument("paths", nargs=-1, required=True)
@_index_option
@_ingest_options
@click.option("--sync", is_flag=True, help="Remove documents whose file has gone from the folder.")
@click.option("--queue", is_flag=True, help="Leave the work to workers, and show how far they are.")
@click.option("--no-wait", is_flag=True, help="With --queue: end at once. visrag status shows how far the workers are.")
@_broker_option
@_json_option
def ingest(
    paths: tuple[str, ...],
    path: str,
    tags: tuple[str, ...],
    sync: bool,
    queue: bool,
    no_wait: bool,
    broker: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Bring PDFs, images, text documents, and folders or URLs of them into the index."""
    settings = _settings(options)
    if queue:
        refused = {"--sync": sync, **{f"--{name.replace('_', '-')}": options[name] for name in _OF_WORKERS}}
        for option, given in refused.items():
            if given:
                raise UsageError(f"{option} cannot be used with --queue: models and processes are the workers'")
        _ingest_by_workers(paths, path, broker, read_tags(tags, "--tag ") if tags else None, settings, no_wait, as_json)
        return
    if no_wait or broker:
        raise UsageError("--no-wait and --broker are of use with --queue only")
    with _open(path, options) as index, progress_bar() as progress:
        summary = index.ingest(
            *paths,
            tags=read_tags(tags, "--tag ") if tags else None,
            sync=sync,
            progress=progress,
            settings=settings,
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
            for summary in index.watch(inbox, read_tags(tags, "--tag ") if tags else None, _settings(options)):
                print_summary(summary)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)


@main.command()
@click.argument("steps", nargs=-1, required=True, type=click.Choice(["ingest", "render", "text", "encode"]))
@_index_option
@_broker_option
@click.option(
    "--processes", type=click.IntRange(1), help="That render; threads that feed an encoder. [default: one a core; 4]"
)
@click.option("--inbox", type=click.Path(exists=True, file_okay=False), help="A folder to watch, with the step ingest.")
@click.option("--text", metavar="MODEL", help="Text model of a new index. [default: all-MiniLM-L6-v2]")
@click.option("--vision", metavar="MODEL", help="Vision model: a hub id or a folder. [default: none]")
@_reduce_options
@_device_option
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def worker(steps: tuple[str, ...], path: str, processes: int | None, log_level: str, **options: Any) -> None:
    """Work for the queue, until ctrl-C or SIGTERM: ingest and render in processes, or text and encode in threads.

    A small deployment is `visrag worker ingest render` and `visrag worker text`; with a vision model also
    `visrag worker encode`, where the GPU is.
    """
    from .queue import work

    if options["inbox"] and "ingest" not in steps:
        raise UsageError("--inbox: a folder is watched by workers with the step ingest")
    _checked(path)
    work(steps, processes, log_level, {"index": path, **options})


@main.command()
@_index_option
@click.option("--watch", is_flag=True, help="Again every second, until nothing is in the queue.")
@_json_option
def status(path: str, watch: bool, as_json: bool) -> None:
    """Show what is in the queue and how far it is."""
    from .queue import read_status

    with _store(path) as store:
        while True:
            found = read_status(store)
            print_status(found, as_json, clear=watch and not as_json)
            if not watch or not found.jobs:
                return
            time.sleep(1)


@main.command()
@click.argument("names", nargs=-1, required=True)
@_index_option
@_json_option
def revoke(names: tuple[str, ...], path: str, as_json: bool) -> None:
    """Take documents out of the queue; what was indexed of them before stays."""
    from .queue import revoke

    with _store(path) as store:
        for name in names:
            revoke(store, name)
    if as_json:
        click.echo(json.dumps({"revoked": names}, ensure_ascii=False))


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
        answer = index.answer(question, options["k"], documents or None, read_tags(tags, "--tag "), options["rank"])
    if as_json:
        click.echo(json.dumps(answer.as_dict(), ensure_ascii=False))
    else:
        print_hits(answer.hits)
    if timings:
        steps = [f"start {since_start() - sum(answer.timings.values()):.2f} s"]
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
    print_rows(rows, as_json)


@main.command()
@_index_option
@_json_option
def failures(path: str, as_json: bool) -> None:
    """List the documents and pages that are not in the index, and why."""
    with _open(path) as index:
        rows = failure_rows(index.failures())
    print_rows(rows, as_json)


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
@_json_option
def compact(path: str, as_json: bool) -> None:
    """Give the bytes of what was removed or replaced back to the disk. The index may be used meanwhile."""
    with _open(path) as index:
        returned = index.compact()
    click.echo(json.dumps({"bytes": returned}) if as_json else f"{size_text(returned)} given back")


@main.command()
@_index_option
@_json_option
def info(path: str, as_json: bool) -> None:
    """Show what the index holds, what it takes, and what it is searched with."""
    with _open(path) as index:
        print_info(index.info(), as_json)


@main.command()
@click.argument("name", required=False)
@_json_option
def models(name: str | None, as_json: bool) -> None:
    """List models that visrag knows of, or all about the model NAME. Others may be used, too."""
    from .encode.catalogue import known_model, known_models

    if name is None:
        print_models(known_models(), as_json)
    else:
        print_model(known_model(name), as_json)


@main.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@_json_option
def copy(source: str, target: str, as_json: bool) -> None:
    """Copy the index SRC into the index DST: folders, or qdrant:// URLs. Run again, it goes on."""
    from .copy import copy_index

    with progress_bar() as progress:
        summary = copy_index(source, target, progress)
    if as_json:
        print_ingest(summary, as_json)
    else:
        counts = f"documents {summary.documents}, pages {summary.pages}, unchanged {summary.unchanged}"
        click.echo(f"copied in {summary.seconds:.1f} s: {counts}", err=True)
        if summary.failures:
            print_rows(failure_rows(summary.failures), as_json=False)
    if summary.failures:
        sys.exit(1)


@main.command()
@_index_option
@_read_options
@_device_option
@_json_option
def retry(path: str, as_json: bool, **options: Any) -> None:
    """Ingest once more the documents that failed, in whole or in part."""
    with _open(path, options) as index, progress_bar() as progress:
        summary = index.retry(progress, _settings(options))
    _finish(summary, as_json)


@main.command()
@_index_option
@click.option("--repair", is_flag=True, help="Make good what is damaged. Nobody else should use the index meanwhile.")
@_password_options
@_limit_options
@_device_option
@_json_option
def check(path: str, repair: bool, as_json: bool, **options: Any) -> None:
    """Compare the index with its checksums; exit with 1 if something is damaged."""
    with _open(path, options) as index, progress_bar() as progress:
        found = index.check(repair, progress, _settings(options))
    print_check(found, as_json)
    if found.left:
        sys.exit(1)


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
@_loss_option("pool", 2)
@_loss_option("dim", 8)
@_device_option
@_json_option
def evaluate(
    questions: Path | None,
    beir: Path | None,
    path: str | None,
    pools: tuple[int, ...],
    dims: tuple[int, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the answers to QUESTIONS, a JSONL file of questions whose pages are known, or a review's verdicts."""
    from .evaluate import evaluate_beir, evaluate_questions
    from .losses import choices_of, evaluate_reduced

    if (questions is None) == (beir is None):
        raise UsageError("give a file of questions, or --beir FOLDER")
    if beir is not None and (pools or dims):
        raise UsageError("--pool and --dim are measured with a file of questions, not with --beir")
    with progress_bar() as progress:
        if beir is not None:
            report = evaluate_beir(beir, path, options["rank"], options["device"], progress)
        elif questions is not None:
            with _open(path or "index", options) as index:
                if choices := choices_of(pools, dims):
                    report = evaluate_reduced(index, questions, options["rank"], choices, progress)
                else:
                    report = evaluate_questions(index, questions, options["rank"], progress)
    if as_json:
        click.echo(json.dumps(report))
    else:
        print_report(report)


# Options


def _open(path: str, options: dict[str, Any] | None = None) -> Index:
    from .index import Index

    _checked(path)
    options = options or {}
    known = {field.name for field in fields(ModelSettings)}
    return Index(path, **{key: value for key, value in options.items() if key in known})


@contextmanager
def _store(path: str) -> Iterator[Store]:
    from .store.opening import open_store

    store = open_store(_checked(path))
    try:
        yield store
    finally:
        store.close()


def _ingest_by_workers(
    paths: Sequence[str],
    index: str,
    broker: str | None,
    tags: dict[str, str] | None,
    settings: Any,
    no_wait: bool,
    as_json: bool,
) -> None:
    from .queue import Queue

    with Queue(broker, _checked(index)) as queue:
        names = queue.ingest(*paths, tags=tags, settings=settings)
        if no_wait:
            if as_json:
                click.echo(json.dumps({"queued": names}, ensure_ascii=False))
            else:
                click.echo(f"{len(names)} in the queue; visrag status shows how far they are", err=True)
            return
        try:
            wait_for(queue, names)
        except KeyboardInterrupt:
            click.echo("the workers go on; visrag status shows how far they are", err=True)
            sys.exit(130)
        documents = [document for name in names if (document := queue.store.document(name)) is not None]
        failures = [failure for name in names for failure in queue.store.failures(name)]
    print_documents(documents, failures, as_json)
    if failures:
        sys.exit(1)


def _checked(path: str) -> str:
    if not path:
        raise UsageError("--index: give the folder of the index")
    return path


_READ = ("ocr", "renderer", "route", "link", "page_timeout", "jobs", "max_pixels", "max_words", "max_pages")
_OF_WORKERS = (*(field.name for field in fields(ModelSettings)), "jobs", "memory")


def _settings(options: dict[str, Any]) -> Any:
    from .settings import IngestSettings

    chosen = {key: options[key] for key in _READ if options.get(key) is not None}
    if options["memory"] is not None:
        chosen["memory"] = options["memory"] << 20
    return IngestSettings(passwords=_passwords(options), **chosen)


def _passwords(options: dict[str, Any]) -> tuple[str, ...]:
    file = options["password_file"]
    return (*options["passwords"], *(() if file is None else read_passwords(file)))


def _finish(summary: Summary, as_json: bool) -> None:
    """Print what an ingest did; exit with 1 if something failed."""
    print_ingest(summary, as_json)
    if summary.failures:
        sys.exit(1)
