"""Checksums of an index's rows: whether what SQLite gives back is what was written.

SQLite finds damage to its own structure only: a text of which a byte flips on the disk is a text like any other. So
each page has a checksum of its rows, as has each verdict, and each document a sealed copy of its own (``facts``), from
which they can be restored. What a transaction writes it seals.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from sqlite3 import Connection
from typing import Any

SINCE = 4  # the migration that brought them
VERDICTS_SINCE = 5  # and that of the verdicts
# Of a row of feedback, in SQL: Database gives its connections the function.
VERDICT = (
    "checksum(CAST(review AS BLOB), CAST(question AS BLOB), CAST(document AS BLOB), page, CAST(reviewer AS BLOB), "
    "CAST(verdict AS BLOB), CAST(note AS BLOB), time)"
)

_COLUMNS = ("name", "content", "settings", "media_type", "state", "pages", "indexed", "failed", "path", "renderer")
_TEXTS = ("name", "content", "settings", "media_type", "state", "renderer")
_PAGE = (
    "SELECT p.generation, p.number, p.width, p.height, CAST(p.text_source AS BLOB), p.drawn, p.length, "
    "CAST(t.text AS BLOB), t.words, CAST(t.terms AS BLOB) "
    "FROM pages p LEFT JOIN page_texts t ON t.page = p.id WHERE p.id = ?"
)
_LEGS = (
    "SELECT CAST(l.name AS BLOB), l.dim, v.count, v.scale, v.crc, v.chance, x.data FROM page_vectors v "
    "JOIN legs l ON l.id = v.leg LEFT JOIN places x ON x.page = v.page AND x.leg = v.leg WHERE v.page = ? ORDER BY 1"
)
_LISTS = {
    "tags": "SELECT key, value FROM tags WHERE generation = ? ORDER BY key",
    "failures": "SELECT page, reason, message FROM failures WHERE generation = ? ORDER BY ifnull(page, 0)",
    "images": "SELECT page, file FROM images WHERE generation = ? ORDER BY page",
}


def checksum(values: Iterable[object]) -> int:
    """The crc32 of a row's values: integers, floats, texts, bytes and None."""
    crc = 0
    for value in values:
        data = value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogatepass")
        crc = zlib.crc32(data, zlib.crc32(b"%d " % len(data), crc))
    return crc


def page_checksum(connection: Connection, page: int) -> int:
    """Of all rows of a page, but for where its vectors lie, which compaction changes and their own checksum proves."""
    rows = [*connection.execute(_PAGE, (page,)), *connection.execute(_LEGS, (page,))]
    return checksum(value for row in rows for value in row)


def seal_page(connection: Connection, page: int) -> None:
    connection.execute("UPDATE pages SET crc = ? WHERE id = ?", (page_checksum(connection, page), page))


def read_facts(connection: Connection, generation: int) -> dict[str, Any]:
    """A document's rows: its columns by name, its tags, failures and images as lists of rows.

    A value that is bytes where a text is to be is given as it is written in Python: another than what was sealed.
    """
    sql = f"SELECT {', '.join(_COLUMNS)} FROM generations WHERE id = ?"
    found = dict(zip(_COLUMNS, connection.execute(sql, (generation,)).fetchone(), strict=True))
    path = found["path"]
    found["path"] = path.decode("latin-1") if isinstance(path, bytes) else str(path)
    found |= {name: _plain(found[name], str) for name in _TEXTS}
    for name, rows in _LISTS.items():
        found[name] = [
            [_plain(value, str, int, float) for value in row] for row in connection.execute(rows, (generation,))
        ]
    return found


def _plain(value: object, *types: type) -> object:
    return value if value is None or isinstance(value, types) else repr(value)


def typed(connection: Connection, generation: int) -> bool:
    """Whether a document's texts are texts."""
    row = connection.execute(f"SELECT {', '.join(_TEXTS)} FROM generations WHERE id = ?", (generation,)).fetchone()
    return all(isinstance(value, str) for value in row)


def seal_document(connection: Connection, generation: int) -> None:
    text = sealed(json.dumps(read_facts(connection, generation)))
    connection.execute("UPDATE generations SET facts = ? WHERE id = ?", (text, generation))


def restore_facts(connection: Connection, generation: int, facts: Mapping[str, Any]) -> None:
    """The inverse of ``read_facts``."""
    columns = ", ".join(f"{name} = ?" for name in _COLUMNS)
    values = [facts["path"].encode("latin-1") if name == "path" else facts[name] for name in _COLUMNS]
    connection.execute(f"UPDATE generations SET {columns} WHERE id = ?", (*values, generation))
    for name in _LISTS:
        connection.execute(f"DELETE FROM {name} WHERE generation = ?", (generation,))
        for row in facts[name]:
            marks = ", ".join("?" * (1 + len(row)))
            connection.execute(f"INSERT INTO {name} VALUES ({marks})", (generation, *row))


def seal_all(connection: Connection) -> None:
    """Seal the rows of an older index."""
    seal_rows(connection)
    seal_settings(connection)


def seal_rows(connection: Connection) -> None:
    """Seal the pages and documents that have no checksum."""
    for (page,) in connection.execute("SELECT id FROM pages WHERE crc IS NULL").fetchall():
        seal_page(connection, page)
    for (generation,) in connection.execute("SELECT id FROM generations WHERE visible AND facts IS NULL").fetchall():
        seal_document(connection, generation)


def seal_verdicts(connection: Connection) -> None:
    """Seal the verdicts that have no checksum."""
    connection.execute(f"UPDATE feedback SET crc = {VERDICT} WHERE crc IS NULL")


def page_holds(connection: Connection, page: int) -> bool:
    """Whether the rows of a page are as they were written; true where that was not noted."""
    noted = connection.execute("SELECT crc FROM pages WHERE id = ?", (page,)).fetchone()[0]
    return noted is None or noted == page_checksum(connection, page)


def seal_settings(connection: Connection) -> None:
    connection.execute("UPDATE state SET crc = ?", (_settings_checksum(connection),))


def settings_hold(connection: Connection) -> bool:
    """Whether the settings are as they were written."""
    noted = connection.execute("SELECT crc FROM state").fetchone()
    return noted is not None and noted[0] == _settings_checksum(connection)


def _settings_checksum(connection: Connection) -> int:
    return checksum(connection.execute("SELECT CAST(settings AS BLOB) FROM state").fetchone() or ())


def sealed(text: str) -> str:
    """A text with its checksum before it."""
    return f"{zlib.crc32(text.encode()):08x} {text}"


def unsealed(text: object) -> str | None:
    """The inverse of ``sealed``; None for what is damaged."""
    if not isinstance(text, str):
        return None
    _, _, inner = text.partition(" ")
    return inner if sealed(inner.encode("utf-8", "replace").decode()) == text else None
