"""The files that are to be ingested, and their names in the index."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .errors import UsageError
from .kinds import SUFFIXES
from .store.remote import Listed, is_url, listing, local_path


@dataclass(frozen=True, slots=True)
class Source:
    """A file and the name that it gets in the index. ``where``: its path, or its URL. ``origin``: the path that the
    index keeps, where the file is a copy of what lay there."""

    where: Path | str
    name: str
    size: int
    origin: str = ""

    @property
    def uri(self) -> str:
        """The file's URL; its absolute path where it is on this machine (file:// where that is no Unicode)."""
        if isinstance(self.where, str):
            return self.where
        path = self.where.absolute()
        try:
            str(path).encode()
        except UnicodeEncodeError:
            return path.as_uri()
        return str(path)

    @property
    def path(self) -> Path:
        """Raises UsageError for a file that isn't on this machine."""
        if isinstance(self.where, str):
            cure = "download it, or leave it to workers (visrag ingest --queue)"
            raise UsageError(f"{self.where}: is not a file of this machine: {cure}")
        return self.where


def find_sources(paths: Sequence[Path | str]) -> list[Source]:
    """The files to ingest, folders walked in order of name. Paths, and URLs of files or of what lies under a prefix.

    A file in a folder is named by its path under that folder, else by its own name. A folder in it that may not be read
    is given as if it were a file, so that it is among what fails. Raises UsageError for a path that is no file or
    folder, a URL under which nothing is, and for two files that would get the same name; MissingExtra.
    """
    found: dict[str, Source] = {}
    for path in paths:
        for source in _sources(path):
            known = found.get(source.name)
            if known is not None and _real(known) != _real(source):
                raise UsageError(
                    f"{source.where} and {known.where} would both be named {source.name}: "
                    "ingest the folder above them, so that their names tell them apart"
                )
            found[source.name] = source
    return list(found.values())


def _sources(path: Path | str) -> list[Source]:
    if isinstance(path, str) and is_url(path):
        return [Source(file.uri, _stored(file.name), file.size) for file in _wanted(path, listing(path))]
    files = _files(local_path(path) if isinstance(path, str) else path)
    return [Source(file, _stored(name), size_of(file)) for file, name in files]


def _stored(name: str) -> str:
    """A name as it can be stored."""
    return name.encode("utf-8", "replace").decode()


def _real(source: Source) -> Path | str:
    return source.where if isinstance(source.where, str) else source.where.resolve()


def _wanted(url: str, files: Sequence[Listed]) -> list[Listed]:
    """Of the files under a URL those that a walk through a folder takes."""
    if [file.uri for file in files] == [url]:
        return list(files)
    indexes = [file.name.removesuffix("index.db") for file in files if f"/{file.name}".endswith("/index.db")]
    indexes = [index for index in indexes if any(file.name.startswith(f"{index}vectors/") for file in files)]
    return [
        file
        for file in files
        if PurePosixPath(file.name).suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in file.name.split("/"))
        and not file.name.startswith(tuple(indexes))
    ]


def _files(path: Path) -> list[tuple[Path, str]]:
    """The files of a path that is given, and their names."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}): check the path and its rights") from error
    if stat.S_ISREG(mode):
        return [(path, path.name)]
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is neither a file nor a folder")
    return [(file, file.relative_to(path).as_posix()) for file in _walk(path)]


def _walk(folder: Path) -> list[Path]:
    unreadable: list[Path] = []
    files: list[Path] = []

    def refused(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise UsageError(f"{folder}: cannot be read ({error.strerror}): check its rights") from error
        if not isinstance(error, FileNotFoundError):
            unreadable.append(Path(error.filename))

    for where, folders, names in os.walk(folder, onerror=refused):
        if "index.db" in names and "vectors" in folders:  # an index, whose page images are no documents
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        wanted = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES]
        files += [file for name in wanted if _may_be_read(file := Path(where, name))]
    return sorted(files + unreadable)


def _may_be_read(path: Path) -> bool:
    """Whether a path is a file, or may be one: what is refused shall be among what fails."""
    try:
        return path.is_file()
    except OSError:
        return True


def size_of(file: Path) -> int:
    """A file's size in bytes, 0 where it cannot be told."""
    try:
        return file.stat().st_size
    except OSError:
        return 0
