"""The files that are to be ingested, and their names in the index."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError
from .kinds import SUFFIXES


@dataclass(frozen=True, slots=True)
class Source:
    """A file and the name that it gets in the index."""

    path: Path
    name: str
    size: int


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """The files to ingest, folders walked in order of name.

    A file in a folder is named by its path under that folder, else by its own name. A folder in it that may not be read
    is given as if it were a file, so that it is among what fails. Raises UsageError for a path that is no file or
    folder, and for two files that would get the same name.
    """
    found: dict[str, Source] = {}
    for path in paths:
        for file, spelled in _files(path):
            name = spelled.encode("utf-8", "replace").decode()
            if name in found and found[name].path.resolve() != file.resolve():
                raise UsageError(
                    f"{file} and {found[name].path} would both be named {name}: "
                    "ingest the folder above them, so that their names tell them apart"
                )
            found[name] = Source(file, name, size_of(file))
    return list(found.values())


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
