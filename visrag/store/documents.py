"""The rows of documents and their pages: written and read within a transaction of the caller's."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from sqlite3 import Connection

from ..errors import StoreError
from ..records import Document, DocumentState, Failure
from .checksums import seal_document, seal_page
from .packing import Block, PackedPage
from .segments import Location


def write_document(connection: Connection, document: Document, writer: str) -> int:
    """A new staged version of a document: its id."""
    row = (
        document.name, document.content, document.settings, document.media_type, "ingesting", document.pages,
        os.fsencode(document.path), document.renderer, writer, time.time(),
    )  # fmt: skip
    cursor = connection.execute(
        "INSERT INTO generations (name, content, settings, media_type, state, pages, indexed, failed, path, renderer, "
        "visible, writer, added) VALUES (?, ?, ?, ?, ?, ?, 0, 0, ?, ?, 0, ?, ?)",
        row,
    )
    generation = cursor.lastrowid
    assert generation is not None
    write_tags(connection, generation, document.tags)
    return generation


def write_tags(connection: Connection, generation: int, tags: Mapping[str, str]) -> None:
    connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(generation, *tag) for tag in tags.items()])


def write_pages(
    connection: Connection,
    generation: int,
    document: str,
    pages: Sequence[PackedPage],
    written: Sequence[Sequence[tuple[Block, Location]]],
) -> None:
    """Add pages, the blocks of which are written, to a staged version; a page of the same number, or its failure, is
    replaced."""
    for page, blocks in zip(pages, written, strict=True):
        key = (generation, page.number)
        connection.execute("DELETE FROM pages WHERE generation = ? AND number = ?", key)
        connection.execute("DELETE FROM failures WHERE generation = ? AND page = ?", key)
        cursor = connection.execute(
            "INSERT INTO pages (generation, number, width, height, text_source, drawn, length) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, *page.size, page.text_source, page.drawn, len(page.terms)),
        )
        row = cursor.lastrowid
        texts = (row, page.text, page.words, " ".join(page.terms + page.phrases))
        connection.execute("INSERT INTO page_texts VALUES (?, ?, ?, ?)", texts)
        for block, (segment, offset, crc) in blocks:
            count, dim = block.data.shape
            leg_id = _leg(connection, block.leg, dim, f"{document}, page {page.number}")
            connection.execute(
                "INSERT INTO page_vectors VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (leg_id, row, segment_id(connection, segment), offset, count, block.scale, crc, block.chance),
            )
            if block.places is not None:
                connection.execute("INSERT INTO places VALUES (?, ?, ?)", (row, leg_id, block.places))
        assert row is not None
        seal_page(connection, row)


def write_failure(connection: Connection, generation: int, page: int | None, reason: str, message: str) -> None:
    """Record a failure; a page that was added before is taken back."""
    connection.execute("DELETE FROM pages WHERE generation = ? AND number = ?", (generation, page))
    connection.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (generation, page, reason, message))


def write_state(connection: Connection, generation: int, name: str, pages: int) -> Document:
    """Make a staged version the visible one. The earlier one must be dropped before."""
    connection.execute(
        "INSERT INTO fulltext (rowid, terms) SELECT t.page, t.terms FROM pages p JOIN page_texts t ON t.page = p.id "
        "WHERE p.generation = ?",
        (generation,),
    )
    indexed = connection.execute("SELECT count(*) FROM pages WHERE generation = ?", (generation,)).fetchone()[0]
    sql = "SELECT count(page), count(*) FROM failures WHERE generation = ?"
    failed, failures = connection.execute(sql, (generation,)).fetchone()
    state: DocumentState = "indexed"
    if failures and not indexed:
        state = "failed"
    elif failures or indexed < pages:
        state = "partial"
    connection.execute(
        "UPDATE generations SET visible = 1, state = ?, pages = ?, indexed = ?, failed = ? WHERE id = ?",
        (state, pages, indexed, failed, generation),
    )
    seal_document(connection, generation)
    connection.execute("DELETE FROM jobs WHERE generation = ?", (generation,))
    return read_documents(connection, name)[0]


def reindex(connection: Connection) -> None:
    """Make full text anew from the terms of the visible pages."""
    connection.execute("INSERT INTO fulltext (fulltext) VALUES ('delete-all')")
    connection.execute(
        "INSERT INTO fulltext (rowid, terms) SELECT t.page, t.terms FROM generations g "
        "JOIN pages p ON p.generation = g.id JOIN page_texts t ON t.page = p.id WHERE g.visible ORDER BY t.page"
    )


def drop(connection: Connection, name: str, staged: bool = False) -> tuple[list[str], list[str]]:
    """Drop the visible version of a document, or all: the originals and images that they used."""
    which = connection.execute(
        "SELECT id, content FROM generations WHERE name = ? AND (visible OR ?)", (name, staged)
    ).fetchall()
    images: list[str] = []
    for generation, _ in which:
        images += [
            file for (file,) in connection.execute("SELECT file FROM images WHERE generation = ?", (generation,))
        ]
        connection.execute(
            "INSERT INTO fulltext (fulltext, rowid, terms) SELECT 'delete', t.page, t.terms FROM generations g "
            "JOIN pages p ON p.generation = g.id JOIN page_texts t ON t.page = p.id WHERE g.id = ? AND g.visible",
            (generation,),
        )
        connection.execute("DELETE FROM generations WHERE id = ?", (generation,))
    return [content for _, content in which], images


def read_documents(connection: Connection, name: str | None = None) -> list[Document]:
    """The documents, or that of this name: the visible version, else the newest staged one as far as it is."""
    one = "" if name is None else "name = ? AND "
    rows = connection.execute(
        "SELECT id, name, content, settings, media_type, state, path, renderer, visible, pages, indexed, failed "
        f"FROM generations g WHERE {one} (visible OR id = (SELECT max(id) FROM generations s "
        "WHERE s.name = g.name AND NOT EXISTS (SELECT 1 FROM generations v WHERE v.name = g.name AND v.visible))) "
        "ORDER BY name",
        () if name is None else (name,),
    ).fetchall()
    documents = []
    for generation, found, content, settings, media_type, state, path, renderer, visible, *counts in rows:
        pages, indexed, failed = counts
        if not visible:
            indexed = connection.execute("SELECT count(*) FROM pages WHERE generation = ?", (generation,)).fetchone()[0]
            failed = connection.execute(
                "SELECT count(page) FROM failures WHERE generation = ?", (generation,)
            ).fetchone()[0]
            pages = max(pages, indexed + failed)
        tags = dict(connection.execute("SELECT key, value FROM tags WHERE generation = ?", (generation,)))
        documents.append(
            Document(
                found, content, settings, media_type, tags, pages, indexed, failed, state, os.fsdecode(path), renderer
            )
        )
    return documents


def read_failures(connection: Connection, document: str | None) -> list[Failure]:
    """Failures of the visible versions, by document and page; a document's own first."""
    rows = connection.execute(
        "SELECT g.name, f.page, f.reason, f.message FROM generations g JOIN failures f ON f.generation = g.id "
        "WHERE g.visible AND (?1 IS NULL OR g.name = ?1) ORDER BY g.name, ifnull(f.page, 0)",
        (document,),
    )
    return [Failure(*row) for row in rows]


def segment_id(connection: Connection, name: str) -> int:
    """The id of a segment, which gets one where it has none."""
    connection.execute("INSERT OR IGNORE INTO segments (name) VALUES (?)", (name,))
    return int(connection.execute("SELECT id FROM segments WHERE name = ?", (name,)).fetchone()[0])


def _leg(connection: Connection, name: str, dim: int, where: str) -> int:
    connection.execute("INSERT OR IGNORE INTO legs (name, dim) VALUES (?, ?)", (name, dim))
    leg, expected = connection.execute("SELECT id, dim FROM legs WHERE name = ?", (name,)).fetchone()
    if dim != expected:
        raise StoreError(
            f"{where}: its vectors in {name} have {dim} dimensions, the index's have {expected}: "
            "use the index's model, or make another index"
        )
    return int(leg)
