"""The files that are to be ingested, and their names in the index."""

from __future__ import annotations

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

    A file in a folder is named by its path under that folder, else by its own name. Raises UsageError for a
    path that does not exist and for two files that would get the same name.
    """
    found: dict[str, Source] = {}
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        files = [(path, path.name)]
        if path.is_dir():
            files = [
                (file, file.relative_to(path).as_posix()) for file in sorted(path.rglob("*")) if _wanted(file, path)
            ]
        for file, name in files:
            if name in found and found[name].path.resolve() != file.resolve():
                raise UsageError(
                    f"{file} and {found[name].path} would both be named {name}: "
                    "ingest the folder above them, so that their names tell them apart"
                )
            found[name] = Source(file, name, file.stat().st_size if file.exists() else 0)
    return list(found.values())


def _wanted(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return file.is_file() and file.suffix.lower() in SUFFIXES and not hidden
