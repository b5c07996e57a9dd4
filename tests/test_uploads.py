"""Files that were handed in: kept whole, gone when nobody needs them, found again for a second reading."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from visrag import IngestSettings, uploads
from visrag.errors import NotFound, UsageError
from visrag.records import Document
from visrag.store.local import LocalStore
from visrag.uploads import Uploads, retry_order, upload_order

DATA = bytes(range(256)) * 5000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with LocalStore.open(tmp_path / "index", create=True) as store:
        yield store


def keep(place: Uploads, name: str, data: bytes = DATA) -> str:
    with place.part() as part:
        part.write_bytes(data)
        return place.keep(part, name)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "YOUNG", -1.0)


def test_a_part_is_moved_not_copied_and_only_its_user_reads_it(tmp_path: Path) -> None:
    place = Uploads(str(tmp_path / "index"))
    with place.part() as part:
        part.write_bytes(DATA)
        before = part.stat()
        kept = Path(place.keep(part, "Année 2024.PDF"))
    assert not part.exists()
    assert kept.read_bytes() == DATA
    assert kept.parent == tmp_path / "index" / "uploads"
    assert kept.suffix == ".pdf"
    assert "Ann" not in kept.name
    assert kept.stat().st_ino == before.st_ino
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.b/c.MD", ".md"), ("x.exe", ""), ("none", ""), ("../../x.html", ".html")]
)
def test_only_suffixes_of_kinds_that_are_read_are_kept(tmp_path: Path, name: str, suffix: str) -> None:
    kept = Path(keep(Uploads(str(tmp_path / "index")), name))
    assert kept.suffix == suffix
    assert kept.parent == tmp_path / "index" / "uploads"


def test_a_part_that_is_not_kept_is_gone(tmp_path: Path) -> None:
    place = Uploads(str(tmp_path / "index"))
    with pytest.raises(KeyError), place.part() as part:  # noqa: PT012
        part.write_bytes(DATA)
        raise KeyError
    assert files(tmp_path) == []


def test_files_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    place = Uploads("qdrant://host:6333/papers?files=memory%3A%2F%2Fbucket%2Fpapers")
    kept = keep(place, "a.pdf")
    assert kept.startswith("memory://bucket/papers/uploads/")
    with fsspec.open(kept, "rb") as file:
        assert file.read() == DATA
    everything_is_old(monkeypatch)
    assert place.sweep(lambda: [kept]) == 0
    assert place.sweep(list) == 1
    assert place.sweep(list) == 0


def test_files_of_an_index_on_qdrant(tmp_path: Path) -> None:
    kept = Path(keep(Uploads(f"qdrant://host:6333/papers?files={tmp_path}/files"), "a.pdf"))
    assert kept.parent == tmp_path / "files" / "uploads"
    with pytest.raises(UsageError, match=r"qdrant://…/papers: .*\?files="):
        Uploads("qdrant://host:6333/papers")


def test_the_sweep_takes_what_nobody_needs_and_nothing_young(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Uploads(str(store.folder))
    queued, done = keep(place, "queued.pdf"), keep(place, "done.pdf")
    store.enqueue([upload_order("queued.pdf", queued)])
    assert place.sweep(lambda: [job.order.uri for job in store.jobs()]) == 0
    everything_is_old(monkeypatch)
    with place.part() as part:
        part.write_bytes(DATA)
        assert place.sweep(lambda: [job.order.uri for job in store.jobs()]) == 1
        assert part.read_bytes() == DATA
    assert Path(queued).exists()
    assert not Path(done).exists()


def test_what_a_killed_process_was_writing_goes(tmp_path: Path) -> None:
    code = (
        "import sys, time; from visrag.uploads import Uploads\n"
        "with Uploads(sys.argv[1]).part() as part: part.write_bytes(b'half'); print('!', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    place = Uploads(str(tmp_path))
    place.sweep(list)
    assert len(files(tmp_path)) == 1  # it is alive
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    place.sweep(list)
    assert files(tmp_path) == []


def test_an_order_takes_no_link_and_no_passwords() -> None:
    for settings in (IngestSettings(link=True), IngestSettings(passwords=("tide",))):
        with pytest.raises(UsageError):
            upload_order("a", "uri", settings)


def indexed(store: LocalStore, path: Path, document: Document, link: bool = False) -> None:
    """Put a document without pages into the index, with its file."""
    document = replace(document, content=hashlib.sha256(path.read_bytes()).hexdigest())
    generation = store.begin(document)
    store.put_original(path, document.content, link)
    store.commit(generation, 0)


def test_a_second_reading_is_of_the_copy_that_the_index_keeps(store: LocalStore, tmp_path: Path) -> None:
    place = Uploads(str(store.folder))
    file = tmp_path / "x"
    file.write_bytes(DATA)
    indexed(store, file, Document("notes", "", "", "text/markdown"))
    file.unlink()
    order = retry_order(store, place, "notes")
    assert Path(order.uri).read_bytes() == store.original("notes").read_bytes() == DATA
    assert Path(order.uri).suffix == ".md"
    assert order.tags is None
    assert order.options["again"] is True
    store.enqueue([order])
    assert retry_order(store, place, "notes") == order  # it waits already


def test_a_second_reading_of_a_file_elsewhere(store: LocalStore, tmp_path: Path) -> None:
    place = Uploads(str(store.folder))
    file = tmp_path / "x.pdf"
    file.write_bytes(DATA)
    indexed(store, file, Document("linked.pdf", "", "", "application/pdf", path=str(file)), link=True)
    order = retry_order(store, place, "linked.pdf")
    assert (order.uri, order.options["link"]) == (str(file), True)
    store.commit(store.begin(Document("not kept.pdf", "", "", "", path=str(file))), 0)
    assert retry_order(store, place, "not kept.pdf").uri == str(file)
    file.unlink()
    assert files(store.folder / "uploads") == []
    for name in ("linked.pdf", "not kept.pdf"):
        with pytest.raises(NotFound, match=f"{name}: its file is not kept"):
            retry_order(store, place, name)
    with pytest.raises(NotFound, match="holds no document other"):
        retry_order(store, place, "other")
