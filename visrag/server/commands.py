"""The commands of the server: visrag serve, visrag keys."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from ..errors import MissingExtra, UsageError
from ..settings import QueueSettings
from ..show import print_rows
from .settings import ROLES, Role, ServerSettings, cache_folder

_keys_option = click.option(
    "--keys",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("visrag-keys.json"),
    show_default=True,
    envvar="VISRAG_KEYS",
    metavar="FILE",
    help="The file of keys.",
)


@click.command()
@click.option(
    "--index",
    "indexes",
    multiple=True,
    metavar="[NAME=]DIR",
    help="An index to serve; repeatable. Its collection is called NAME, or as its folder is. "
    "[default: VISRAG_INDEX, else index]",
)
@click.option("--host", default="127.0.0.1", show_default=True, envvar="VISRAG_HOST", help="The address to listen at.")
@click.option(
    "--port", default=8080, show_default=True, envvar="VISRAG_PORT", type=click.IntRange(1, 65_535), help="The port."
)
@_keys_option
@click.option("--broker", metavar="URL", envvar="VISRAG_BROKER", help="A Redis whose workers ingest. [default: none]")
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="FOLDER|URL",
    help="From where documents may be taken by URI; repeatable. [default: VISRAG_ROOTS, one a line, else nowhere]",
)
@click.option("--no-ingest", is_flag=True, help="Only search: take no documents.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A name by which it is called; repeatable.")
@click.option(
    "--max-upload", default=512, show_default=True, type=click.IntRange(1), metavar="MIB", help="Of one document."
)
@click.option(
    "--rate",
    default=100.0,
    show_default=True,
    type=click.FloatRange(1),
    metavar="N",
    help="Requests a second of a caller.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="For pictures of pages. [default: ~/.cache/visrag/pages]",
)
@click.option("--text", metavar="MODEL", envvar="VISRAG_TEXT", help="Text model of a new index.")
@click.option("--vision", metavar="MODEL", envvar="VISRAG_VISION", help="Vision model of a new index.")
@click.option("--device", metavar="DEVICE", envvar="VISRAG_DEVICE", help="cpu or cuda.")
def serve(
    indexes: tuple[str, ...],
    path: Path,
    broker: str | None,
    no_ingest: bool,
    max_upload: int,
    cache: Path | None,
    text: str | None,
    vision: str | None,
    device: str | None,
    roots: tuple[str, ...],
    **options: object,
) -> None:
    """Serve indexes over HTTP: the reviewers' page, and the API under /v1. Until ctrl-C or SIGTERM."""
    # Read when numpy is imported. Searches run side by side, and OpenBLAS with several threads lets them wait for one
    # another even while each is limited to one.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from .app import serve as run
        from .keys import KeyFile
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0].startswith("visrag"):
            raise
        raise MissingExtra("The server", "server") from error
    own = QueueSettings.from_environment()
    settings = ServerSettings(
        collections=_collections(indexes or (os.environ.get("VISRAG_INDEX") or "index",)),
        roots=roots or tuple(os.environ.get("VISRAG_ROOTS", "").splitlines()),
        keys=path,
        broker=broker or "",
        ingest=not no_ingest,
        upload_bytes=max_upload << 20,
        cache=cache or cache_folder(),
        models=replace(own.wanted, text=text, vision=vision, device=device),
        passwords=own.passwords,
        memory=own.memory,
        **options,  # type: ignore[arg-type]
    )
    names = ", ".join(settings.collections)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    access = "with keys" if KeyFile(path).list() else "without keys: everybody on this machine may do everything"
    click.echo(f"http://{host}:{settings.port} serves {names} {access}; ctrl-C ends it", err=True)
    run(settings)


@click.group()
def keys() -> None:
    """Make, list and revoke the keys of a server."""


@keys.command()
@_keys_option
@click.option(
    "--role", type=click.Choice(ROLES), required=True, help="reader: search, judge; writer: also documents; admin: all."
)
@click.option("--collection", "collections", multiple=True, metavar="C", help="Only this; repeatable. [default: all]")
@click.option("--name", default="", help="Whose it is: verdicts bear it. [default: its id]")
def create(path: Path, role: Role, collections: tuple[str, ...], name: str) -> None:
    """Make a key and print it. It is shown only now: the file has its hash."""
    from .keys import KeyFile

    click.echo(KeyFile(path).create(role, collections or None, name))


@keys.command("list")
@_keys_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(path: Path, as_json: bool) -> None:
    """List the keys."""
    from .keys import KeyFile

    rows = [
        {
            "id": key.id,
            "name": key.name,
            "role": key.role,
            "collections": "all" if key.collections is None else ", ".join(key.collections),
            "created": datetime.fromtimestamp(key.created, UTC).isoformat(timespec="seconds"),
        }
        for key in KeyFile(path).list()
    ]
    print_rows(rows, as_json)


@keys.command()
@_keys_option
@click.argument("ids", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def revoke(path: Path, ids: tuple[str, ...], as_json: bool) -> None:
    """Revoke keys by their ids. A server that runs refuses them at once."""
    from .keys import KeyFile

    for id in ids:
        KeyFile(path).revoke(id)
    if as_json:
        click.echo(json.dumps({"revoked": ids}))


def _collections(indexes: tuple[str, ...]) -> dict[str, str]:
    """Name and index of each collection. Raises UsageError."""
    found: dict[str, str] = {}
    for given in indexes:
        name, sign, index = given.partition("=")
        if not sign or "/" in name:
            name, index = "", given
        name = name or Path(index.partition("?")[0].rstrip("/")).resolve().name
        if name in found:
            raise UsageError(f"--index {given}: another collection is called {name}: give it as NAME={index}")
        if not name.isprintable() or set(name) & set("/?#%"):
            raise UsageError(f"--index {given}: {name!r} is no name for a collection: give it as NAME={index}")
        found[name] = index
    return found
