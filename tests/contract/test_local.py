"""What the local store must do beyond the contract: several processes, sudden death, damage, the disk."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from segment_files import the_segment
from store_cases import document, page, put, query, unit

from visrag.errors import Damaged, IndexMismatch, NotFound, StoreError
from visrag.records import Feedback, Filter, PageRef
from visrag.store import database, tables
from visrag.store.local import LocalStore

ALL = Filter()
HERE = Path(__file__).parent
PRELUDE = f"""
import sys
sys.path[:0] = [{str(HERE)!r}, {str(HERE.parent.parent)!r}]
import numpy as np
from store_cases import *
from visrag.records import Filter
from visrag.store.local import LocalStore
store = LocalStore.open(sys.argv[1], create=True)
rng = np.random.default_rng(int(sys.argv[2]))
"""


@contextmanager
def process(index: Path, script: str, seed: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the index open as ``store``; killed at the end if it still runs."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + script, str(index), str(seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.fixture
def index(tmp_path):
    return tmp_path / "index"


@pytest.fixture
def store(index):
    with LocalStore.open(index, create=True) as opened:
        yield opened


def files(index):
    return sorted(str(path.relative_to(index)) for folder in ("vectors", "originals", "images", "writers")
                  for path in (index / folder).iterdir())  # fmt: skip


# Opening


def test_a_folder_that_is_no_index_is_not_made_one(tmp_path):
    with pytest.raises(StoreError, match="is not an index; make one"):
        LocalStore.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(StoreError, match="is not an index"):
        LocalStore.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("attempt", range(5))
def test_several_may_make_an_index_at_once(index, attempt):
    together = threading.Barrier(4)

    def opened(_):
        together.wait()
        with LocalStore.open(index, create=True) as store:
            return store.documents()

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(opened, range(4))) == [[]] * 4


def test_a_file_in_place_of_the_folder_or_of_the_database(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"file.*choose another path"):
        LocalStore.open(tmp_path / "file", create=True)
    (tmp_path / "index.db").write_text("this is no database, whatever its name may say" * 9)
    with pytest.raises(StoreError, match="not an index"):
        LocalStore.open(tmp_path, create=True)


def test_another_database_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "index.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    with pytest.raises(StoreError, match="made by something else"):
        LocalStore.open(tmp_path, create=True)


def test_an_index_of_a_newer_version_is_refused(index):
    LocalStore.open(index, create=True).close()
    with sqlite3.connect(index / "index.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(IndexMismatch, match="newer version of visrag"):
        LocalStore.open(index)


def test_a_network_file_system_is_refused(tmp_path):
    mounts = tmp_path / "mounts"
    share = tmp_path.resolve() / "my share"
    share.mkdir()
    escaped = str(share).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n")
    database.refuse_network(tmp_path, mounts)
    with pytest.raises(StoreError, match=r"network file system \(nfs4.*a disk of this machine"):
        database.refuse_network(share / "index", mounts)
    database.refuse_network(share, tmp_path / "no such file")


def test_importing_the_store_loads_no_torch():
    code = "import sys; import visrag.store.local; assert not {'torch', 'transformers', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parent.parent)


def test_an_index_that_cannot_be_written_can_be_searched(index, monkeypatch):
    with LocalStore.open(index, create=True) as store:
        put(store, "a.pdf", [page(1, "common")])
    monkeypatch.setattr(database.os, "access", lambda path, mode: mode != os.W_OK)
    with LocalStore.open(index) as store:
        assert store.candidates("fulltext", ["common"], ALL, 5)
        with pytest.raises(StoreError, match=r"index cannot be written: give this user the right"):
            put(store, "b.pdf", [page(1)])


def test_who_may_only_read_sees_what_others_write(index, monkeypatch):
    with LocalStore.open(index, create=True) as store:
        put(store, "a.pdf", [page(1, "common")])
    script = """
for line in sys.stdin:
    put(store, line.strip(), [page(1, "common")])
    print(flush=True)
store.close()
"""
    monkeypatch.setattr(database.os, "access", lambda path, mode: mode != os.W_OK)

    def come_and_go(name):
        with process(index, script) as owner:
            owner.communicate(name, timeout=60)

    def count(reader):
        return len(reader.candidates("fulltext", ["common"], ALL, 99))

    with LocalStore.open(index) as reader:
        assert count(reader) == 1
        come_and_go("b.pdf")
        assert count(reader) == 2
        with (
            pytest.raises(StoreError, match=r"index\.db was written while it was read without a lock: run again"),
            reader._database.read(),
        ):
            come_and_go("c.pdf")
        assert count(reader) == 3
        with process(index, script) as owner:
            for expected, name in enumerate(("d.pdf", "e.pdf"), 4):
                owner.stdin.write(f"{name}\n")
                owner.stdin.flush()
                owner.stdout.readline()
                with reader._database.read() as connection:  # with a lock
                    assert count(reader) == expected
                    assert connection.execute("SELECT count(*) FROM pages").fetchone() == (expected,)
            owner.communicate(timeout=60)
        come_and_go("f.pdf")
        assert count(reader) == 6
        assert reader.check() == []


def test_an_index_of_an_older_version_is_brought_to_the_newest(index, monkeypatch):
    said = Feedback("q", "a.pdf", 1, "relevant", time=1.0)
    with LocalStore.open(index, create=True) as store:
        put(store, "a.pdf", [page(1, "common")])
    with sqlite3.connect(index / "index.db") as connection:  # as before the third migration
        for table, column in (("state", "crc"), ("generations", "facts"), ("pages", "crc")):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.execute("DROP TABLE feedback")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with monkeypatch.context() as patched:
        patched.setattr(database.os, "access", lambda path, mode: mode != os.W_OK)
        with LocalStore.open(index) as store:
            assert store.feedback() == []
            with pytest.raises(StoreError, match="cannot be written"):
                store.judge(said)
    with LocalStore.open(index) as store:
        store.judge(said)
        assert store.feedback() == [said]
        assert store.candidates("fulltext", ["common"], ALL, 5)
        assert store.check() == []
    with sqlite3.connect(index / "index.db") as connection:  # what was there is sealed
        connection.execute("UPDATE page_texts SET text = 'another'")
    connection.close()
    with LocalStore.open(index) as store, pytest.raises(Damaged, match=r"a\.pdf, page 1"):
        store.page(PageRef("a.pdf", 1))


def test_verdicts_of_an_older_index_are_sealed(index):
    said = Feedback("q", "a.pdf", 1, "relevant", "told", time=1.0)
    with LocalStore.open(index, create=True) as store:
        store.judge(said)
    with sqlite3.connect(index / "index.db") as connection:  # as before the fifth migration
        connection.execute("ALTER TABLE feedback DROP COLUMN crc")
        connection.execute("PRAGMA user_version = 4")
    connection.close()
    with LocalStore.open(index) as store:
        assert store.feedback() == [said]
        assert store.check() == []
    with sqlite3.connect(index / "index.db") as connection:
        connection.execute("UPDATE feedback SET note = 'sold'")
    connection.close()
    with LocalStore.open(index) as store:
        assert [(damage.kind, damage.document, damage.page) for damage in store.check()] == [("verdict", "a.pdf", 1)]


# Errors


def test_a_full_disk_leaves_the_index_as_it_was(store, index):
    put(store, "a.pdf", [page(1, "common")])
    generation = store.begin(document("b.pdf"))
    with store._database.write() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match=r"index\.db: the disk is full: make room"):
        store.add_pages(generation, [page(n, f"word{n} " * 3000) for n in range(50)])
    with LocalStore.open(index) as other:
        assert [ref for ref, _ in other.candidates("fulltext", ["common"], ALL, 5)] == [PageRef("a.pdf", 1)]
    with store._database.write() as connection:
        connection.execute("PRAGMA max_page_count = 1073741823")
    store.add_pages(generation, [page(1, "common")])
    store.commit(generation, 1)
    assert len(store.candidates("fulltext", ["common"], ALL, 5)) == 2


def test_a_segment_that_cannot_grow_is_an_error_that_names_it(index):
    script = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
put(store, "a.pdf", [page(1, "x", tokens=unit(rng, 4))])
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
generation = store.begin(document("b.pdf"))
try:
    store.add_pages(generation, [page(1, tokens=unit(rng, 40_000))])
except Exception as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
put(store, "c.pdf", [page(1, "x", tokens=unit(rng, 4))])
print(store.page_count(Filter()), store.check())
"""
    with process(index, script) as running:
        out, _ = running.communicate(timeout=60)
    first, second = out.splitlines()
    assert first.startswith("StoreError")
    assert "vectors" in first
    assert "ulimit" in first
    assert second == "2 []"


def test_a_compaction_that_has_no_room_leaves_no_segment(index):
    script = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
for name in ("a.pdf", "b.pdf"):
    put(store, name, [page(n, "x", tokens=unit(rng, 2000)) for n in (1, 2, 3)])
store.remove("a.pdf")
resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, resource.RLIM_INFINITY))
try:
    store.compact()
except Exception as error:
    print(type(error).__name__, error)
print(store.find_damage().orphans, store.check())
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(store.compact() > 90_000, store.check())
"""
    with process(index, script) as running:
        out, _ = running.communicate(timeout=60)
    first, *others = out.splitlines()
    assert first.startswith("StoreError")
    assert others == ["[] []", "True []"]


def test_files_that_another_process_deletes_meanwhile_count_for_nothing(store, index):
    """As a name that is listed and leads to no file."""
    for folder in ("vectors", "originals"):
        (index / folder / "0.seg").symlink_to("gone")
    put(store, "a.pdf", [page(1, tokens=unit(np.random.default_rng(0), 3))])
    segments = sum(path.stat().st_size for path in (index / "vectors").iterdir() if path.exists())
    assert store.bytes_used() | {"index.db": 0} == {
        "index.db": 0, "vectors": segments, "originals": 0, "images": 0, "waiting": 0
    }  # fmt: skip
    assert store.compact(worth=True) == 0
    store.remove("a.pdf")
    assert store.compact() >= segments


def test_errors_of_sqlite_become_ours_with_the_path_and_the_cure(store, index):
    cures = {
        sqlite3.SQLITE_READONLY: "give this user the right",
        sqlite3.SQLITE_BUSY: "wait for it",
        sqlite3.SQLITE_CORRUPT: "visrag check --repair",
        sqlite3.SQLITE_ERROR: "could not be",
    }
    for code, cure in cures.items():
        error = sqlite3.OperationalError("from sqlite")
        error.sqlite_errorcode = code
        with pytest.raises(StoreError, match=rf"index\.db.*{cure}.*from sqlite"), database.mapped(index / "index.db"):
            raise error
    with pytest.raises(StoreError, match="not valid Unicode"):
        store.begin(document("\udcff.pdf"))
    with pytest.raises(StoreError, match=r"a\.pdf, page 1: cannot be stored"):
        store.add_pages(store.begin(document("a.pdf")), [page(1, "\udcff")])


def test_a_path_of_any_bytes_is_kept(store):
    assert put(store, "latin.pdf", [page(1)], path="/tmp/caf\udce9.pdf").path == "/tmp/caf\udce9.pdf"


def test_a_flipped_byte_is_found_and_named(store, index):
    rng = np.random.default_rng(0)
    put(store, "a.pdf", [page(n, tokens=unit(rng, 8)) for n in (1, 2, 3)])
    assert store.check() == []
    segment = the_segment(index)
    data = bytearray(segment.read_bytes())
    data[64 + 128 + 5] ^= 1  # the header, the first page's 8 × 16 codes
    segment.write_bytes(data)
    (damage,) = store.check()
    assert (damage.document, damage.page, damage.leg) == ("a.pdf", 2, "tokens")
    assert damage.file == f"vectors/{segment.name}"
    with pytest.raises(Damaged, match=r"a\.pdf, page 2.*damaged.*visrag check --repair"):
        store.vectors("tokens", PageRef("a.pdf", 2))
    assert store.vectors("tokens", PageRef("a.pdf", 1)) is not None


def test_a_segment_that_was_cut_or_is_missing_is_an_error_not_an_empty_answer(store, index):
    rng = np.random.default_rng(0)
    put(store, "a.pdf", [page(n, tokens=unit(rng, 8)) for n in (1, 2, 3)])
    store.close()
    segment = the_segment(index)
    os.truncate(segment, 200)
    with LocalStore.open(index) as opened:
        with pytest.raises(StoreError, match="damaged: it ends at byte 200"):
            opened.candidates("tokens", query(unit(rng, 2)), ALL, 5)
        assert [damage.page for damage in opened.check()] == [2, 3]
        segment.unlink()
    with LocalStore.open(index) as opened, pytest.raises(StoreError, match="is missing"):
        opened.candidates("tokens", query(unit(rng, 2)), ALL, 5)


def test_a_store_is_not_used_after_a_fork(store, monkeypatch):
    monkeypatch.setattr(database.os, "getpid", lambda: -1)
    with pytest.raises(StoreError, match="open it again here"):
        store.documents()


# Files


def test_originals_live_as_long_as_a_document_uses_them(store, index, tmp_path):
    source = tmp_path / "source.pdf"
    source.write_bytes(b"%PDF the content")
    content = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(StoreError, match="no document of this content"):
        store.put_original(source, content, link=False)
    for name in ("a.pdf", "b.pdf"):
        generation = store.begin(document(name, content))
        store.put_original(source, content, link=False)
        store.commit(generation, 0)
    assert store.original("a.pdf").read_bytes() == source.read_bytes()
    assert store.original("a.pdf").parent == index / "originals"
    store.remove("a.pdf")
    assert store.original("b.pdf").exists()
    put(store, "b.pdf", [page(1)], content="changed")
    assert list((index / "originals").iterdir()) == []
    with pytest.raises(NotFound, match=r"b\.pdf"):
        store.original("b.pdf")


def test_a_linked_original_stays_where_it_is(store, index, tmp_path):
    source = tmp_path / "source.pdf"
    source.write_bytes(b"%PDF")
    generation = store.begin(document("a.pdf", "hash"))
    store.put_original(source, "hash", link=True)
    store.commit(generation, 0)
    assert store.original("a.pdf") == source
    assert list((index / "originals").iterdir()) == []
    source.unlink()
    with pytest.raises(NotFound, match="gone"):
        store.original("a.pdf")
    store.remove("a.pdf")


def test_page_images_go_with_their_document(store, index):
    generation = store.begin(document("a.pdf"))
    store.add_pages(generation, [page(1), page(2)])
    for number in (1, 2):
        store.put_image(generation, number, Image.new("RGB", (40, 30), (200, 10, 10)))
    assert store.image_path(PageRef("a.pdf", 1)) is None
    store.commit(generation, 2)
    path = store.image_path(PageRef("a.pdf", 1))
    assert path == store.image_path(PageRef("a.pdf", 2))  # the same picture is one file
    with Image.open(path) as image:
        assert image.size == (40, 30)
        red, green, _ = image.convert("RGB").getpixel((20, 15))
        assert red > 190
        assert green < 20
    store.remove("a.pdf")
    assert list((index / "images").iterdir()) == []


# Compaction


def test_compaction_gives_bytes_back_and_changes_no_answer(store, index):
    rng = np.random.default_rng(0)
    asked = query(unit(rng, 3))
    for i in range(20):
        put(store, f"{i}.pdf", [page(n, "common " * 50, tokens=unit(rng, 100)) for n in (1, 2)])
    for i in range(0, 20, 2):
        store.remove(f"{i}.pdf")
    reader = LocalStore.open(index)
    before = reader.candidates("tokens", asked, ALL, 99)
    size = sum(path.stat().st_size for path in (index / "vectors").iterdir())
    returned = store.compact()
    assert returned > 0.4 * size
    assert sum(path.stat().st_size for path in (index / "vectors").iterdir()) < 0.6 * size
    for each in (store, reader):
        assert each.candidates("tokens", asked, ALL, 99) == before
        assert len(each.candidates("fulltext", ["common"], ALL, 99)) == 20
        assert each.check() == []
    reader.close()
    put(store, "new.pdf", [page(1, tokens=unit(rng, 5))])
    assert store.check() == []
    for found in store.documents():
        store.remove(found.name)
    store.compact()
    assert list((index / "vectors").iterdir()) == []


def test_a_search_on_the_state_before_a_compaction_runs_again(store, index):
    rng = np.random.default_rng(0)
    asked = query(unit(rng, 3))
    for name in ("a.pdf", "b.pdf"):
        put(store, name, [page(1, tokens=unit(rng, 100))])
    with LocalStore.open(index) as reader:
        table = reader.page_count(ALL) and reader._table
        with reader._snapshot() as (connection, _):
            table.leg(connection, "tokens")
        store.remove("a.pdf")
        changes = store._database
        store.compact()
        with changes.read() as connection:
            table.changes = connection.execute("SELECT changes FROM state").fetchone()[0]  # as if read in between
        assert [ref.document for ref, _ in reader.candidates("tokens", asked, ALL, 5)] == ["b.pdf"]


def test_searches_go_on_while_another_handle_writes_removes_and_compacts(store, index):
    rng = np.random.default_rng(0)
    asked, kept = query(unit(rng, 3)), unit(rng, 30)
    put(store, "kept.pdf", [page(1, "common", tokens=kept)])
    expected = store.candidates("tokens", asked, Filter(frozenset({"kept.pdf"})), 1)
    done, failed, rounds = threading.Event(), [], []

    def read():
        try:
            with LocalStore.open(index) as reader:
                while not done.is_set():
                    rounds.append(len(rounds))
                    assert reader.candidates("tokens", asked, Filter(frozenset({"kept.pdf"})), 1) == expected
                    assert reader.candidates("tokens", asked, ALL, 9)
                    assert len(reader.vectors("tokens", PageRef("kept.pdf", 1)).vectors) == 30
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    written = 0
    while thread.is_alive() and (written < 15 or len(rounds) < 5):
        put(store, "other.pdf", [page(1, "common", tokens=unit(rng, 60))])
        written += 1
        if written % 2 == 0:
            store.remove("other.pdf")
            store.compact()
    done.set()
    thread.join()
    assert not failed


def test_a_check_tells_no_damage_where_others_compact_replace_and_remove_meanwhile(store, index, tmp_path):
    rng = np.random.default_rng(0)

    def put_with_file(to, name, text):
        (tmp_path / name).write_text(text)
        content = hashlib.sha256(text.encode()).hexdigest()
        generation = to.begin(document(name, content))
        to.add_pages(generation, [page(1, tokens=unit(rng, 200))])
        to.put_original(tmp_path / name, content, link=False)
        to.commit(generation, 1)

    with LocalStore.open(index) as other:
        for name in ("a.pdf", "b.pdf", "c.pdf", "d.pdf"):
            put_with_file(other, name, name)

    def meanwhile(_):
        """The rows have been read, and no file yet."""
        before = {path.name for path in (index / "vectors").iterdir()}
        with LocalStore.open(index) as other:
            other.remove("a.pdf")
            put_with_file(other, "b.pdf", "another b")
        with LocalStore.open(index) as other:
            assert other.compact() > 0
        assert before.isdisjoint(path.name for path in (index / "vectors").iterdir())

    found = store.find_damage(meanwhile)
    assert (found.damage, found.orphans, found.notes, found.documents, found.pages) == ([], [], [], 4, 4)
    (index / "originals" / hashlib.sha256(b"c.pdf").hexdigest()).unlink()
    assert [(damage.kind, damage.document) for damage in store.check()] == [("original", "c.pdf")]


# Processes


def test_a_reader_in_another_process_sees_a_commit_at_its_next_query(store, index):
    script = """
asked = query(unit(rng, 2))
for line in sys.stdin:
    print(len(store.candidates("tokens", asked, Filter(), 99)), store.page_count(Filter()), flush=True)
"""
    with process(index, script) as running:
        for count in range(1, 4):
            put(store, f"{count}.pdf", [page(1, tokens=unit(np.random.default_rng(count), 3))])
            running.stdin.write("\n")
            running.stdin.flush()
            assert running.stdout.readline().split() == [str(count)] * 2


def test_another_process_writes_removes_and_compacts_while_this_one_searches(store, index, monkeypatch):
    """The two documents that stay are found in every state; of the others one that is there, with all its pages."""
    monkeypatch.setattr(tables, "LARGE", 0)
    monkeypatch.setattr(tables, "oversampling", lambda: 1.5)
    monkeypatch.setattr(tables, "kernel", lambda: "a C kernel")
    rng = np.random.default_rng(0)
    kept = {name: unit(rng, 30) for name in ("a.pdf", "z.pdf")}
    for name, vectors in kept.items():
        put(store, name, [page(1, "common", tokens=vectors)])
    asked = [(name, query(vectors[:3])) for name, vectors in kept.items()]
    expected = {name: store.candidates("tokens", each, ALL, 1) for name, each in asked}
    script = """
import itertools, select
for i in itertools.count():
    put(store, f"{i % 7}.pdf", [page(n, "common", tokens=unit(rng, 40)) for n in (1, 2)])
    if i % 3 == 2:
        store.remove(f"{(i - 1) % 7}.pdf")
    if i % 6 == 5:
        store.compact()
    if i > 60 and select.select([sys.stdin], [], [], 0)[0]:
        break
store.close()
"""
    states = set()
    with process(index, script, 1) as running:
        while running.poll() is None:
            for name, each in asked:
                assert store.candidates("tokens", each, ALL, 1) == expected[name]
            found = [ref.document for ref, _ in store.candidates("fulltext", ["common"], ALL, 99)]
            others = Counter(found) - Counter(list(kept))
            assert set(others.values()) <= {2}
            states.add(frozenset(others))
            if len(states) > 5:
                running.stdin.close()
        assert running.returncode == 0
    assert len(states) > 5
    assert store.check() == []


def test_two_processes_write_at_once(store, index):
    script = """
for i in range(15):
    put(store, f"{sys.argv[2]}-{i}.pdf", [page(n, "common", tokens=unit(rng, 9)) for n in (1, 2)])
put(store, "both.pdf", [page(1, "common")])
store.close()
"""
    with process(index, script, 1) as first, process(index, script, 2) as second:
        assert first.wait(60) == 0
        assert second.wait(60) == 0
    assert store.page_count(ALL) == 2 * 15 * 2 + 1
    assert store.check() == []
    assert len(store.candidates("tokens", query(unit(np.random.default_rng(0), 2)), ALL, 99)) == 60
    assert len(store.candidates("fulltext", ["common"], ALL, 99)) == 61


def test_kill_9_in_the_middle_leaves_nothing(index):
    script = """
put(store, "kept.pdf", [page(1, "common", tokens=unit(rng, 40))])
source = __import__("pathlib").Path(sys.argv[1]).parent / "lost.pdf"
source.write_bytes(b"lost")
content = __import__("hashlib").sha256(b"lost").hexdigest()
generation = store.begin(document("lost.pdf", content))
store.add_pages(generation, [page(n, "common", tokens=unit(rng, 400)) for n in range(1, 9)])
store.put_original(source, content, link=False)
print("ready", flush=True)
sys.stdin.readline()
"""
    with process(index, script) as running:
        assert running.stdout.readline() == "ready\n"
        with LocalStore.open(index) as other:  # its writer lives: it is left alone
            assert [d.name for d in other.documents()] == ["kept.pdf", "lost.pdf"]
        running.send_signal(signal.SIGKILL)
        running.wait()
    with LocalStore.open(index) as store:
        assert [d.name for d in store.documents()] == ["kept.pdf"]
        assert store.page_count(ALL) == 1
        assert len(store.candidates("fulltext", ["common"], ALL, 9)) == 1
        assert [name.partition("/")[0] for name in files(index)] == ["vectors"] * 2
        size = sum(path.stat().st_size for path in (index / "vectors").iterdir())
        store.compact()
        assert sum(path.stat().st_size for path in (index / "vectors").iterdir()) < size / 2
        assert store.check() == []
        assert len(store.candidates("tokens", query(unit(np.random.default_rng(0), 2)), ALL, 9)) == 1


def test_kill_9_at_any_moment_loses_nothing_that_was_committed(index):
    script = """
for i in range(10_000):
    put(store, f"{i % 7}.pdf", [page(n, f"common v{i}", tokens=unit(rng, 50)) for n in (1, 2, 3)])
    if i % 5 == 4:
        store.compact()
    print(i, flush=True)
"""
    for seed in range(4):
        with process(index, script, seed) as running:
            for _ in range(3 + 4 * seed):
                last = int(running.stdout.readline())
            running.send_signal(signal.SIGKILL)
            running.wait()
        with LocalStore.open(index) as store:
            assert store.check() == []
            assert store.page_count(ALL) == 3 * len(store.documents())
            assert {d.state for d in store.documents()} == {"indexed"}
            newest = store.page(PageRef(f"{last % 7}.pdf", 1)).text
            assert int(newest.split("v")[1]) >= last
            found = store.candidates("tokens", query(unit(np.random.default_rng(0), 2)), ALL, 99)
            assert len(found) == store.page_count(ALL) == len(store.candidates("fulltext", ["common"], ALL, 99))
            store.compact()
            assert {name.partition("/")[0] for name in files(index)} == {"vectors"}


def test_kill_9_loses_nothing_that_was_judged(index):
    script = """
from visrag.records import Feedback
for n in range(1, 10_000):
    store.judge(Feedback("q", "a.pdf", n, "relevant", time=float(n)))
    print(n, flush=True)
"""
    with process(index, script) as running:
        for _ in range(20):
            last = int(running.stdout.readline())
        running.send_signal(signal.SIGKILL)
        running.wait()
    with LocalStore.open(index) as store:
        pages = [said.page for said in store.feedback()]
    assert pages[:last] == list(range(1, last + 1))
