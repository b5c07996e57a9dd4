"""A full disk, a folder that cannot be written, a second writer, an index of a newer version: by the commands."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from flips import compare, left_behind
from pdfs import write
from test_cli import visrag
from test_ingest import NO_OCR, pdf

from visrag import Index, StoreError
from visrag.store.local import LocalStore

WORDS = "the quick trams of the northern region measured by the year"
STEP = 49_152  # bytes by which the disk has more room each time


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("ColBERT", tmp_path_factory.mktemp("models") / "text")


def mounted(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted("-t", "tmpfs", "-o", "size=3m", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, free: int) -> Path:
    """Take all but so many bytes of a disk."""
    ballast = disk / "ballast"
    ballast.unlink(missing_ok=True)
    status = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(bytes(max(0, status.f_bavail * status.f_frsize - free)))
    return ballast


def big(folder: Path) -> Path:
    """A PDF of 8 pages and of 150 kB."""
    file = pdf(folder / "big.pdf", *(f"{WORDS} {number}" for number in range(8)))
    return write(file, file.read_bytes() + b"\n%" + os.urandom(75_000).hex().encode())


def refused(index: Path, file: Path) -> str:
    """What an ingest says where there is no room, "" where there is."""
    try:
        with Index(index, device="cpu") as opened:
            opened.ingest(file, settings=NO_OCR)
    except StoreError as error:
        return str(error)
    return ""


def test_a_full_disk_leaves_the_index_as_before_the_document(disk: Path, tmp_path: Path, model: Path) -> None:
    """The disk has room for more and more, so that it is full in turn where rows, vectors and the original are
    written, and at last for all."""
    index, file = disk / "index", big(tmp_path)
    with Index(index, text=str(model), device="cpu") as opened:
        opened.ingest(pdf(tmp_path / "first.pdf", "a walrus", "a heron"), settings=NO_OCR)
    before = tmp_path / "before"
    shutil.copytree(index, before)
    struck = set()
    for free in range(0, 2_000_000, STEP):
        ballast = fill(disk, free)
        if not (message := refused(index, file)):
            break
        assert "the disk is full: make room and run again; nothing that was committed is lost" in message
        struck |= {name for name in ("index.db", "originals", "vectors") if f"{index}/{name}" in message}
        with Index(index, device="cpu") as opened:  # while there is no room still
            assert [hit.document for hit in opened.search("walrus", rank="fulltext")] == ["first.pdf"]
        ballast.unlink()
        with LocalStore.open(index) as store:
            assert store.check() == []
        assert compare(index, before).problems == []
        assert left_behind(index) == []
    assert {"index.db", "originals"} <= struck
    with LocalStore.open(index) as store:
        assert [(d.name, d.indexed) for d in store.documents()] == [("big.pdf", 8), ("first.pdf", 2)]
        assert store.check() == []


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file that this process writes may be greater."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_may_not_grow_leaves_the_index_as_before_the_document(tmp_path: Path, model: Path) -> None:
    """As on a full disk, where none can be mounted."""
    index, file = tmp_path / "index", big(tmp_path)
    with Index(index, text=str(model), device="cpu") as opened:
        opened.ingest(pdf(tmp_path / "first.pdf", "a walrus", "a heron"), settings=NO_OCR)
    before = Path(shutil.copytree(index, tmp_path / "before"))
    struck = set()
    for size in (1000, 40_000, 140_000):
        with limited(size):
            message = refused(index, file)
        assert message
        struck |= {name for name in ("index.db", "originals", "vectors") if f"{index}/{name}" in message}
        with LocalStore.open(index) as store:
            assert store.check() == []
        assert compare(index, before).problems == []
        assert left_behind(index) == []
    assert "index.db" in struck
    assert refused(index, file) == ""
    with LocalStore.open(index) as store:
        assert [(d.name, d.indexed) for d in store.documents()] == [("big.pdf", 8), ("first.pdf", 2)]


def test_the_command_says_that_the_disk_is_full_and_works_once_there_is_room(
    disk: Path, tmp_path: Path, model: Path
) -> None:
    index, file = disk / "index", big(tmp_path)
    with Index(index, text=str(model), device="cpu") as opened:
        opened.ingest(pdf(tmp_path / "first.pdf", "a walrus"), settings=NO_OCR)
    ballast = fill(disk, 150_000)
    done = visrag("ingest", file, "--index", index, "--ocr", "off")
    assert done.exit_code == 2
    assert f"visrag: {index}" in done.stderr
    assert "the disk is full: make room and run again" in done.stderr
    assert "Traceback" not in done.stderr
    ballast.unlink()
    assert visrag("ingest", file, "--index", index, "--ocr", "off").exit_code == 0
    assert visrag("check", "--index", index).exit_code == 0


def test_vectors_for_which_there_is_no_room(disk: Path, tmp_path: Path) -> None:
    """Where the disk is full as vectors are appended, and as pictures are kept."""
    import numpy as np
    from PIL import Image

    sys.path.append(str(Path(__file__).parent / "contract"))
    from store_cases import document, page, put, unit

    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (700, 700, 3), np.uint8))
    with LocalStore.open(disk / "index", create=True) as store:
        put(store, "a.pdf", [page(1, "common", tokens=unit(rng, 4))])
        ballast = fill(disk, 600_000)
        generation = store.begin(document("b.pdf"))
        with pytest.raises(StoreError, match=r"vectors.*the disk is full"):
            store.add_pages(generation, [page(1, tokens=unit(rng, 60_000))])
        store.add_pages(generation, [page(1, tokens=unit(rng, 60))])
        fill(disk, 50_000)
        with pytest.raises(StoreError, match="the disk is full"):
            store.put_image(generation, 1, picture)
        ballast.unlink()
        store.put_image(generation, 1, picture)
        store.commit(generation, 1)
        assert store.check() == []
        assert [document.name for document in store.documents()] == ["a.pdf", "b.pdf"]
    assert left_behind(disk / "index") == []


def test_a_folder_that_cannot_be_written_is_searched_and_not_written(tmp_path: Path, model: Path) -> None:
    index, file = tmp_path / "index", pdf(tmp_path / "a.pdf", "a walrus")
    with Index(index, text=str(model), device="cpu") as opened:
        opened.ingest(file, settings=NO_OCR)
    mounted("--bind", index, index)
    try:
        mounted("-o", "remount,bind,ro", index)
        assert "a.pdf" in visrag("search", "walrus", "--rank", "fulltext", "--index", index).stdout
        with Index(index, device="cpu") as opened:
            assert [hit.document for hit in opened.search("walrus")] == ["a.pdf"]
            assert opened.page_image("a.pdf", 1).size == (1131, 1600)
            found = opened.check()
            assert (found.damage, found.notes) == ([], ["full text was not checked: the index cannot be written"])
        done = visrag("ingest", pdf(tmp_path / "b.pdf", "a heron"), "--index", index, "--ocr", "off")
        assert done.exit_code == 2
        assert f"{index} cannot be written" in done.stderr
        assert "Traceback" not in done.stderr
        assert visrag("check", "--index", index).exit_code == 0
    finally:
        subprocess.run(["umount", str(index)], check=True)
    with Index(index, device="cpu") as opened:
        assert opened.ingest(tmp_path / "b.pdf", settings=NO_OCR).pages == 1


def test_two_ingests_at_once(tmp_path: Path, model: Path) -> None:
    """Each process writes to a segment of its own; what both bring is there once."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(4):
            pdf(tmp_path / folder / f"{folder}-{number}.pdf", *(f"{WORDS} {folder} {page}" for page in range(6)))
        pdf(tmp_path / folder / "both.pdf", "a walrus")
    options = ("--index", str(tmp_path / "index"), "--text", str(model), "--ocr", "off", "--jobs", "1")
    commands = [[sys.executable, "-m", "visrag", "ingest", str(tmp_path / name), *options] for name in ("one", "two")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    ends = [(process.communicate(timeout=200)[1], process.returncode) for process in processes]
    assert [code for _, code in ends] == [0, 0], ends
    with Index(tmp_path / "reference", text=str(model), device="cpu") as reference:
        reference.ingest(tmp_path / "one", tmp_path / "two" / "two-0.pdf", *(tmp_path / "two").glob("two-*.pdf"),
                         settings=NO_OCR)  # fmt: skip
    assert left_behind(tmp_path / "index") == []
    assert compare(tmp_path / "index", tmp_path / "reference").problems == []
    with LocalStore.open(tmp_path / "index") as store:
        assert store.check() == []
        assert store.find_damage().orphans == []


def test_an_index_of_a_newer_version_is_refused_by_every_command(tmp_path: Path) -> None:
    LocalStore.open(tmp_path / "index", create=True).close()
    with closing(sqlite3.connect(tmp_path / "index" / "index.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    file = pdf(tmp_path / "a.pdf", "a walrus")
    for arguments in (("check",), ("check", "--repair"), ("search", "walrus"), ("ingest", file)):
        done = visrag(*arguments, "--index", tmp_path / "index")
        assert done.exit_code == 2
        assert "made by a newer version of visrag" in done.stderr
        assert "upgrade visrag" in done.stderr
