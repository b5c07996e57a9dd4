"""The files that an index keeps beside its database: originals and page images, by the hash of their content."""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import FileChanged, NotFound, NotWritten
from ..records import PageRef
from .database import Database, mapped
from .locks import lock_new
from .segments import size_of_file, sync_folder

if TYPE_CHECKING:
    from PIL.Image import Image

WEBP_SIDE = 16383  # pixels: a longer side is stored as PNG


class Files:
    """originals/ and images/ of a local index. A file goes with the last document that uses it."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._originals = folder / "originals"
        self._images = folder / "images"
        self._parts = folder / "writers"
        self._database = database

    def make_folders(self) -> None:
        for folder in (self._originals, self._images, self._parts):
            folder.mkdir(exist_ok=True)

    def put_original(self, path: Path, content: str, link: bool) -> None:
        """Keep the file of a document that is begun: a copy, or only where it is. Raises FileChanged, NotWritten."""
        with self._database.read() as connection:
            if connection.execute("SELECT 1 FROM generations WHERE content = ?", (content,)).fetchone() is None:
                raise NotWritten(f"{path}: no document of this content was begun in the index")
        if not link and not (self._originals / content).exists():
            with path.open("rb") as source, mapped(self._originals):
                put(source, self._originals / content, self._parts, content)
        where = os.fsencode(path.absolute()) if link else None
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO originals VALUES (?, ?)", (content, where))

    def mend_original(self, path: Path, content: str) -> None:
        """Write the index's copy of a file anew. Raises FileChanged where ``path`` has another content."""
        with path.open("rb") as source, mapped(self._originals):
            put(source, self._originals / content, self._parts, content)

    def original(self, document: str, generation: int | None) -> Path:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT o.content, o.link FROM generations g JOIN originals o USING (content) "
                "WHERE g.name = ?1 AND (g.id = ?2 OR (g.visible AND ?2 IS NULL))",
                (document, generation),
            ).fetchone()
        if row is None:
            raise NotFound(f"the index keeps no file of {document}")
        path = self._originals / row[0] if row[1] is None else Path(os.fsdecode(row[1]))
        if not path.exists():
            raise NotFound(f"{document}: its file {path} is gone; put it back, or ingest the document again")
        return path

    def put_image(self, generation: int, page: int, image: Image) -> None:
        """Keep the picture of a page of a staged generation."""
        kind = "WEBP" if max(image.size) <= WEBP_SIDE else "PNG"
        data = io.BytesIO()
        image.convert("RGB").save(data, kind, quality=85)
        name = f"{hashlib.sha256(data.getvalue()).hexdigest()}.{kind.lower()}"
        with self._database.write() as connection:  # under the lock no one deletes it before it has its row
            path = self._images / name
            if not path.exists() or path.read_bytes() != data.getvalue():  # which a flipped byte brings about
                data.seek(0)
                put(data, path, self._parts)
            connection.execute("INSERT OR REPLACE INTO images VALUES (?, ?, ?)", (generation, page, name))

    def image_path(self, page: PageRef) -> Path | None:
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT i.file FROM generations g JOIN images i ON i.generation = g.id "
                "WHERE g.visible AND g.name = ? AND i.page = ?",
                page,
            ).fetchone()
        return None if row is None else self._images / row[0]

    def delete_unused(self, originals: Iterable[str], images: Iterable[str]) -> None:
        """Delete those of these files that no document uses. The database's lock keeps a document from beginning to."""
        originals, images = [name for name in originals if name], list(images)  # "": a file that could not be read
        if not originals and not images:
            return
        with self._database.write() as connection:
            for name in originals:
                if not _used(connection, "generations", "content", name):
                    connection.execute("DELETE FROM originals WHERE content = ?", (name,))
                    (self._originals / name).unlink(missing_ok=True)
            for name in images:
                if not _used(connection, "images", "file", name):
                    (self._images / name).unlink(missing_ok=True)

    def names(self) -> tuple[list[str], list[str]]:
        """The names of all originals and of all images here."""
        with self._database.read() as connection:
            linked = [content for (content,) in connection.execute("SELECT content FROM originals")]
        return linked + [path.name for path in self._originals.iterdir()], [
            path.name for path in self._images.iterdir()
        ]


def _used(connection: sqlite3.Connection, table: str, column: str, value: str) -> bool:
    return connection.execute(f"SELECT 1 FROM {table} WHERE {column} = ? LIMIT 1", (value,)).fetchone() is not None


def size_of_files(folder: Path) -> int:
    """The bytes of all files in a folder and its folders, as far as they stay while they are counted."""
    return sum(size_of_file(Path(path, name)) for path, _, names in os.walk(folder) for name in names)


def put(source: BinaryIO, path: Path, parts: Path, sha256: str | None = None) -> None:
    """Copy a file to ``path``, which is there whole or not at all. Raises FileChanged where its hash is another.

    What is being written lies in ``parts``, locked, so that it is swept once its writer has died.
    """
    part = parts / os.urandom(8).hex()
    try:
        with open(lock_new(part), "wb") as target:
            hash = hashlib.sha256()
            while chunk := source.read(2**20):
                hash.update(chunk)
                target.write(chunk)
            if sha256 is not None and hash.hexdigest() != sha256:
                raise FileChanged(f"{getattr(source, 'name', path)}: was changed while it was read: ingest it again")
            target.flush()
            os.fsync(target.fileno())
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
