"""visrag check: damage is found, named and repaired, and the index is as it was."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from click.testing import CliRunner
from flips import SETTINGS, compare, damage, make_documents, make_index, outcome
from segment_files import BITS, the_segment
from test_ingest import NO_OCR, pdf

from visrag import Index, IngestSettings, StoreError, UsageError
from visrag.check import Check
from visrag.cli import main
from visrag.errors import Damaged
from visrag.store.checksums import sealed
from visrag.store.damage import COPY
from visrag.store.database import alone
from visrag.store.local import LocalStore


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an index (reference), its documents (away, not where they came from) and its model. Not to be
    changed."""
    work = tmp_path_factory.mktemp("made")
    model = make_checkpoint("ColBERT", work / "model")
    make_index(work / "reference", make_documents(work / "in"), model)
    (work / "in").rename(work / "away")
    return work


@pytest.fixture
def reference(made: Path) -> Path:
    return made / "reference"


@pytest.fixture
def path(tmp_path: Path, reference: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(reference, tmp_path / "index"))


def checked(path: Path, repair: bool = False) -> Check:
    with Index(path, device="cpu") as index:
        return index.check(repair, settings=SETTINGS)


def execute(path: Path, sql: str, *values: object) -> None:
    """Change an index behind its back."""
    with closing(sqlite3.connect(path / "index.db")) as connection:
        connection.execute(sql, values)
        connection.commit()


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x10
    file.write_bytes(data)


def assert_repaired(path: Path, reference: Path) -> None:
    """What a repair leaves: nothing damaged, and everything as it was."""
    again = checked(path)
    assert (again.damage, again.orphans) == ([], [])
    assert compare(path, reference).problems == []


def command(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_whole_index_is_clean(path: Path) -> None:
    found = checked(path)
    assert (found.documents, found.pages, found.damage, found.orphans, found.notes) == (6, 16, [], [], [])
    code, out = command("check", "--index", path, "--json")
    assert code == 0
    assert json.loads(out) | {"seconds": 0} == {
        "documents": 6, "pages": 16, "damage": [], "orphans": [], "notes": [], "seconds": 0,
    }  # fmt: skip


def test_vectors_that_are_damaged_are_named_and_come_back_as_they_were(path: Path, reference: Path) -> None:
    segment = the_segment(path)
    with LocalStore.open(path) as store, store._database.read() as connection:
        sql = (
            "SELECT offset FROM generations g JOIN pages p ON generation = g.id JOIN page_vectors ON page = p.id "
            "JOIN legs ON legs.id = leg WHERE legs.name = 'tokens' AND g.name = 'paper-2.pdf' AND number = 3"
        )
        ((offset,),) = connection.execute(sql)
    flip(segment, offset + 7)
    with (
        Index(path, device="cpu") as index,
        pytest.raises(Damaged, match=r"paper-2\.pdf, page 3.*visrag check --repair"),
    ):
        index.search("paper-2 page 3 of 4", documents=["paper-2.pdf"])
    code, out = command("check", "--index", path, "--json")
    (found,) = json.loads(out)["damage"]
    assert code == 1
    assert (found["document"], found["page"], found["file"]) == ("paper-2.pdf", 3, f"vectors/{segment.name}")
    assert found["repaired"] is False
    code, out = command("check", "--index", path, "--repair", "--json")
    (found,) = json.loads(out)["damage"]
    assert (code, found["repaired"]) == (0, True)
    assert_repaired(path, reference)


@pytest.mark.parametrize("cut", [0, 30, 64, 1500, -100])
def test_a_segment_cut_at_any_byte(path: Path, reference: Path, cut: int) -> None:
    segment = the_segment(path)
    os.truncate(segment, cut % segment.stat().st_size)
    with Index(path, device="cpu") as index, pytest.raises(Damaged, match="damaged"):
        index.search("trams", rank="maxsim")
    found = checked(path, repair=True)
    assert found.damage
    assert {each.document for each in found.damage if each.kind == "page"} <= {d.name for d in Index(path).documents()}
    assert found.left == []
    assert_repaired(path, reference)


def test_a_segment_whose_header_is_damaged_or_which_is_missing(path: Path, reference: Path) -> None:
    segment = the_segment(path)
    flip(segment, 3)
    assert [(each.kind, each.file) for each in checked(path).damage] == [("segment", f"vectors/{segment.name}")]
    assert checked(path, repair=True).left == []
    assert_repaired(path, reference)
    segment.unlink()
    found = checked(path, repair=True)
    assert (len(found.damage), found.left) == (16, [])
    assert_repaired(path, reference)


CODES = "leg = (SELECT id FROM legs WHERE name = 'tokens')"


def test_bits_that_are_damaged_are_named_and_come_back_as_they_were(path: Path, reference: Path) -> None:
    segment = the_segment(path, BITS)
    flip(segment, 64 + 7)
    (found,) = checked(path).damage
    assert (found.kind, found.file, found.leg) == ("page", f"vectors/{segment.name}", "tokens.bits")
    assert checked(path, repair=True).left == []
    assert_repaired(path, reference)
    flip(segment, 10)
    assert [(each.kind, each.file) for each in checked(path).damage] == [("segment", f"vectors/{segment.name}")]
    assert checked(path, repair=True).left == []
    segment.unlink()
    found = checked(path, repair=True)
    assert (len(found.damage), found.left) == (16, [])
    assert_repaired(path, reference)


PAGES = [
    "UPDATE page_texts SET text = text || '.' WHERE page = 3",
    "UPDATE page_texts SET words = zeroblob(40) WHERE page = 10",
    "UPDATE page_texts SET text = CAST(x'ff41' AS TEXT) WHERE page = 5",
    "UPDATE page_vectors SET scale = scale * 2 WHERE page = 6",
    "UPDATE page_texts SET terms = terms || ' walrus' WHERE page = 7",
    "UPDATE places SET data = x'00' WHERE page = 8",
    "DELETE FROM page_texts WHERE page = 9",
]
DOCUMENTS = [
    "UPDATE generations SET name = 'papir-1.pdf' WHERE name = 'paper-1.pdf'",
    "UPDATE generations SET content = 'x' WHERE name = 'paper-2.pdf'",
    "UPDATE generations SET facts = replace(facts, 'paper', 'papir') WHERE name = 'paper-3.pdf'",
    "UPDATE generations SET visible = 0 WHERE name = 'chart.pdf'",
    "UPDATE tags SET value = '2034' WHERE value = 'notes'",
    "DELETE FROM images",
]


@pytest.mark.parametrize(
    ("sql", "kind", "count"),
    [
        (PAGES, "page", 7),
        ([f"UPDATE page_vectors SET offset = offset + 64 WHERE page = 3 AND {CODES}"], "page", 1),
        (["UPDATE page_vectors SET offset = -5 WHERE page = 3"], "page", 2),
        (["UPDATE page_vectors SET count = 1 << 40 WHERE page = 3"], "page", 3),  # its rows, and its blocks
        (["DELETE FROM pages WHERE id = 3"], "page", 1),
        (["INSERT INTO fulltext (fulltext) VALUES ('delete-all')"], "fulltext", 1),
        (["UPDATE fulltext_data SET block = zeroblob(30) WHERE id > 10"], "fulltext", 1),
        (DOCUMENTS, "document", 6),
        (["UPDATE generations SET name = CAST(x'ff41' AS TEXT) WHERE name = 'paper-1.pdf'"], "document", 1),
        (["UPDATE state SET settings = replace(settings, '0.1', '0.7')"], "settings", 1),
        (["UPDATE state SET settings = substr(settings, 2)"], "settings", 1),
        (["DELETE FROM segments"], "page", 32),
        (["UPDATE segments SET name = 'x' || name"], "page", 32),
        (["UPDATE generations SET name = CAST(name AS BLOB)"], "database", 1),  # as one bit makes of it
        (["UPDATE generations SET content = CAST(content AS BLOB), facts = CAST(facts AS BLOB)"], "database", 2),
        (["UPDATE segments SET name = CAST(name AS BLOB)", "UPDATE legs SET name = CAST(name AS BLOB)"], "database", 2),
        (["UPDATE page_texts SET words = CAST(words AS TEXT) WHERE page = 5"], "page", 1),
    ],
)
def test_rows_that_are_damaged_are_found_and_made_good(
    path: Path, reference: Path, sql: list[str], kind: str, count: int
) -> None:
    for each in sql:
        execute(path, each)
    with Index(path, device="cpu") as index:  # an answer or an error of ours
        for rank in ("fulltext", "maxsim"):
            with suppress(StoreError):
                index.search("trams of the region", rank=rank)  # type: ignore[arg-type]
    found = checked(path)
    assert len([each for each in found.damage if each.kind == kind]) == count
    assert all(each.file for each in found.damage)
    assert checked(path, repair=True).left == []
    assert_repaired(path, reference)


@pytest.mark.parametrize("sql", ["verdict = 'relevant'", "note = CAST(x'ff41' AS TEXT)", "time = time + 1"])
def test_a_verdict_that_is_damaged_is_told_and_goes(path: Path, reference: Path, sql: str) -> None:
    with Index(path, device="cpu") as index:
        kept = index.judge("Which trams?", "paper-1.pdf", 1, "relevant", "told")
        index.judge("Which trams?", "paper-1.pdf", 2, "not_relevant", "told", reviewer="Ann")
    assert checked(path).damage == []
    execute(path, f"UPDATE feedback SET {sql} WHERE page = 2")
    (found,) = checked(path).damage
    assert (found.kind, found.document, found.page) == ("verdict", "paper-1.pdf", 2)
    assert '"question": "Which trams?", "reviewer": "Ann"' in found.message
    repaired = checked(path, repair=True)
    assert (repaired.left, repaired.notes) == ([], [f"paper-1.pdf, page 2: {found.message}; it is gone"])
    with Index(path, device="cpu") as index:
        assert index.feedback() == [kept]
    assert_repaired(path, reference)


def test_a_database_that_is_damaged_empty_or_missing_is_an_error_that_names_it(path: Path, tmp_path: Path) -> None:
    database = path / "index.db"
    whole = database.read_bytes()
    for data in (b"", b"\0" * len(whole), whole[: len(whole) // 2], None):
        database.unlink() if data is None else database.write_bytes(data)
        for arguments in (["search", "trams", "--rank", "fulltext"], ["ingest", str(pdf(tmp_path / "a.pdf", "x"))]):
            code, out = command(*arguments, "--index", path)
            assert code == 2
            assert f"visrag: {database}" in out
            assert "visrag check --repair" in out
        code, out = command("check", "--index", path)
        assert code == 1
        assert "index.db" in out
    assert len(list((path / "originals").iterdir())) == 6


@pytest.mark.parametrize("offset", [0, 17, 60, 4096, 4096 * 7 + 3])
def test_a_database_that_sqlite_cannot_read_is_made_anew(path: Path, reference: Path, offset: int) -> None:
    database = path / "index.db"
    data = bytearray(database.read_bytes())
    data[offset : offset + 40] = os.urandom(40)
    database.write_bytes(data)
    found = checked(path, repair=True)
    assert found.left == [], found.notes
    assert_repaired(path, reference)


def test_of_a_database_cut_in_half_the_documents_come_back(path: Path, reference: Path) -> None:
    os.truncate(path / "index.db", (path / "index.db").stat().st_size // 2 + 100)
    found = checked(path, repair=True)
    assert found.left == [], found.notes
    with LocalStore.open(path) as store, LocalStore.open(reference) as whole:
        contents = [sorted(d.content for d in opened.documents()) for opened in (store, whole)]
    assert contents[0] == contents[1]


def test_without_a_database_the_originals_are_ingested_anew(path: Path, reference: Path) -> None:
    (path / "index.db").unlink()
    found = checked(path, repair=True)
    assert found.left == []
    assert sum("its name, tags and settings are lost" in note for note in found.notes) == 6
    assert "index.db was made anew: verdicts and what was in the queue may be missing" in found.notes
    with LocalStore.open(path) as store, LocalStore.open(reference) as whole:
        assert sorted(d.content for d in store.documents()) == sorted(d.content for d in whole.documents())
        assert store.settings() == whole.settings()  # from their copy
    with Index(path, device="cpu") as index:
        assert index.search("paper-3 page 2 of 4", rank="fulltext")
        assert {Path(each.path).parent for each in index.documents()} == {path.resolve() / "originals"}


def test_an_index_that_another_process_has_open_is_not_made_anew(path: Path) -> None:
    database = path / "index.db"
    script = "import sys, sqlite3; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM state').fetchall(); "
    script += "print('open', flush=True); sys.stdin.readline()"
    started = [sys.executable, "-c", script, str(database)]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        (path / "images" / "0.webp").write_bytes(b"left")  # a repair of any kind
        with pytest.raises(StoreError, match="open in another process"):
            checked(path, repair=True)
        execute(path, "UPDATE pages SET generation = 999 WHERE id = 3")
        with pytest.raises(StoreError, match="open in another process"):
            checked(path, repair=True)
        other.communicate(b"\n")
    assert checked(path, repair=True).left == []


def test_originals_and_pictures(path: Path, reference: Path, made: Path) -> None:
    with Index(path, device="cpu") as index:
        locked = index.document("locked.pdf").content  # of which the pictures are
    for folder in ("originals", "images"):
        for file in sorted(file for file in (path / folder).iterdir() if file.name != locked)[:2]:
            flip(file, 20)
    found = checked(path)
    assert sorted(each.kind for each in found.damage) == ["image", "image", "original", "original"]
    assert all(each.document and each.file for each in found.damage)
    with Index(path, device="cpu") as index, pytest.raises(StoreError, match=r"images/.*visrag check --repair"):
        index.page_image("locked.pdf", 1)
    found = checked(path, repair=True)
    assert {each.kind for each in found.left} == {"original"}
    assert sum("put the file back there" in note for note in found.notes) == 2
    (made / "away").rename(made / "in")
    try:
        assert checked(path, repair=True).left == []
    finally:
        (made / "in").rename(made / "away")
    assert_repaired(path, reference)


def test_what_cannot_be_repaired_is_said_with_what_to_do(path: Path) -> None:
    segment = the_segment(path)
    os.truncate(segment, 64)
    for original in (path / "originals").iterdir():
        original.unlink()
    code, out = command("check", "--index", path, "--repair")
    assert code == 1
    assert "paper-1.pdf: its pages are damaged and its file is gone: ingest it anew, or remove it" in out


def test_a_locked_document_is_read_again_with_its_password(path: Path, reference: Path) -> None:
    execute(path, "UPDATE page_texts SET text = 'x' WHERE page IN (SELECT p.id FROM pages p JOIN generations g "
            "ON g.id = p.generation WHERE name = 'locked.pdf')")  # fmt: skip
    with Index(path, device="cpu") as index:
        found = index.check(repair=True)
        assert {each.document for each in found.left} == {"locked.pdf"}
        assert any("password" in note for note in found.notes)
    code, _ = command("check", "--index", path, "--repair", "--password", SETTINGS.passwords[0])
    assert code == 0
    assert_repaired(path, reference)


def test_a_repair_within_lower_limits_takes_no_whole_page(tmp_path: Path, made: Path) -> None:
    file = pdf(tmp_path / "a.pdf", "walrus", "heron " * 9, "otter")
    with Index(tmp_path / "index", text=str(made / "model"), device="cpu") as index:
        index.ingest(file, settings=NO_OCR)
        before = index.documents()
    execute(tmp_path / "index", "UPDATE page_texts SET text = 'x' WHERE page = 3")
    repair = ("check", "--index", tmp_path / "index", "--repair", "--json", "--jobs", 1, "--max-words")
    code, out = command(*repair, 8)
    (found,) = json.loads(out)["damage"]
    assert (code, found["page"], found["repaired"]) == (1, 3, False)
    (note,) = json.loads(out)["notes"]
    assert note.startswith("a.pdf, page 2: has 9 words, more than 8")
    assert note.endswith("; the document stays as it was")
    with Index(tmp_path / "index", device="cpu") as index:
        assert (index.documents(), index.failures()) == (before, [])
    code, out = command(*repair, 9)
    assert (code, json.loads(out)["notes"]) == (0, [])
    with Index(tmp_path / "index", device="cpu") as index:
        assert (index.documents(), index.page("a.pdf", 3).text) == (before, "otter")


def test_files_that_nothing_needs_are_told_and_deleted(path: Path, reference: Path) -> None:
    content = hashlib.sha256(b"left").hexdigest()
    orphans = ["images/0.webp", f"originals/{content}", "vectors/0.seg", "writers/0"]
    strange = path / "originals" / "photo.jpg"
    for orphan in (*orphans, "originals/photo.jpg"):
        (path / orphan).write_bytes(b"left")
    code, out = command("check", "--index", path, "--json")
    assert (code, json.loads(out)["orphans"]) == (0, orphans)
    code, out = command("check", "--index", path, "--repair", "--json")
    assert (code, json.loads(out)["orphans"]) == (0, orphans)
    (note,) = json.loads(out)["notes"]
    assert "originals/photo.jpg: belongs to no document" in note
    (path / "writers" / "0").touch()  # a dead process: what it left is swept
    with LocalStore.open(path) as store:
        store.compact()
    assert strange.read_bytes() == b"left"
    strange.unlink()
    assert_repaired(path, reference)


def test_a_document_comes_back_with_the_settings_that_it_was_made_with(tmp_path: Path, made: Path) -> None:
    linked, copied = pdf(tmp_path / "linked.pdf", "walrus"), pdf(tmp_path / "copied.pdf", "heron")
    with Index(tmp_path / "index", text=str(made / "model"), device="cpu") as index:
        index.ingest(linked, settings=IngestSettings(ocr="off", jobs=1, link=True), tags={"a": "b"})
        index.ingest(copied, settings=IngestSettings(ocr="always", renderer="poppler", route="text", jobs=1))
        before = index.documents()
    copied.unlink()
    segment = the_segment(tmp_path / "index")
    os.truncate(segment, 64)
    shutil.copytree(tmp_path / "index", tmp_path / "damaged")
    found = checked(tmp_path / "index", repair=True)
    assert (len(found.damage), found.left, found.notes) == (2, [], [])
    with Index(tmp_path / "index", device="cpu") as index:
        assert index.documents() == before
        assert index.ingest(linked, settings=IngestSettings(ocr="off", jobs=1, link=True)).unchanged == 1
    assert len(list((tmp_path / "index" / "originals").iterdir())) == 1  # none of the linked one
    pdf(linked, "another")
    found = checked(tmp_path / "damaged", repair=True)
    assert [each.document for each in found.left] == ["linked.pdf"]


def test_the_settings_have_a_copy(path: Path, reference: Path) -> None:
    """It is healed where it is missing, damaged, or older or newer than they are."""
    whole = (reference / COPY).read_bytes()
    flipped = bytes([*whole[:100], whole[100] ^ 1, *whole[101:]])
    for data in (None, flipped, sealed('{"older": 1}').encode()):
        (path / COPY).unlink() if data is None else (path / COPY).write_bytes(data)
        assert checked(path).damage == []
        assert (path / COPY).read_bytes() == whole


def test_settings_that_are_damaged_with_their_copy_stay_so(path: Path) -> None:
    execute(path, "UPDATE state SET settings = substr(settings, 2)")
    (path / COPY).write_bytes(b"x")
    left = path / "images" / "0.webp"
    left.write_bytes(b"left")
    found = checked(path, repair=True)
    assert [each.kind for each in found.left] == ["settings"]
    assert "the settings are damaged, and so is their copy: make another index of the documents" in found.notes
    assert "the files that nothing needs are kept until nothing is damaged" in found.notes
    assert left.exists()
    assert [each.kind for each in checked(path).damage] == ["settings"]
    with LocalStore.open(path) as store, pytest.raises(Damaged, match="its settings are damaged"):
        store.settings()


KILLED = """
import os, sys
from pathlib import Path
def killed(path, target):
    if path.name == sys.argv[2]:
        os.kill(os.getpid(), 9)
    return replace(path, target)
replace, Path.replace = Path.replace, killed
"""


def killed_at(path: Path, name: str, script: str) -> None:
    """Run a script on an index, in a process that dies before it gives its place to a file of this name."""
    command = [sys.executable, "-c", KILLED + script, str(path), name]
    assert subprocess.run(command, check=False).returncode == -9


def test_a_copy_of_the_settings_that_is_not_finished_is_swept(path: Path, reference: Path) -> None:
    script = """
from visrag.store import files
from visrag.store.local import LocalStore
def sync(descriptor): os.kill(os.getpid(), 9)
files.os.fsync = sync
LocalStore.open(sys.argv[1]).write_settings({"a": 1})
"""
    killed_at(path, "", script)
    assert len(list((path / "writers").iterdir())) == 1
    with LocalStore.open(path) as store, LocalStore.open(reference) as whole:
        assert store.settings() == whole.settings()
    assert {each.name for each in path.iterdir()} == {each.name for each in reference.iterdir()}
    assert_repaired(path, reference)


def test_what_was_acknowledged_outlives_a_repair_that_is_killed(path: Path, reference: Path) -> None:
    """Where the old log is gone, and the new database not yet in place: the next to open the index puts it there."""
    script = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute(sys.argv[2]); "
    insert = "INSERT INTO feedback VALUES ('r', 'q', 'd', 1, 'w', NULL, 'told', 1.0, NULL)"
    command = [sys.executable, "-c", script + "os.kill(os.getpid(), 9)", str(path / "index.db"), insert]
    subprocess.run(command, check=False)
    assert (path / "index.db-wal").stat().st_size > 0  # the row is in the log only
    killed_at(path, "whole.db", "from visrag.store.rebuild import rebuild; rebuild(Path(sys.argv[1]))")
    assert not (path / "index.db-wal").exists()
    assert checked(path).orphans == ["rebuild"]
    with closing(sqlite3.connect(path / "index.db")) as connection:
        assert connection.execute("SELECT note FROM feedback").fetchall() == [("told",)]
        connection.execute("DELETE FROM feedback")
        connection.commit()
    (path / "writers" / "0").touch()
    LocalStore.open(path).close()
    assert len(list((path / "originals").iterdir())) == 6
    assert checked(path, repair=True).left == []
    assert_repaired(path, reference)


def test_what_others_made_is_not_repaired(tmp_path: Path) -> None:
    (tmp_path / "originals").mkdir()
    photo = tmp_path / "originals" / "photo.jpg"
    photo.write_bytes(b"mine")
    with closing(sqlite3.connect(tmp_path / "index.db")) as connection:
        connection.execute("CREATE TABLE mine (x)")
        connection.commit()
    before = (tmp_path / "index.db").read_bytes()
    with pytest.raises(StoreError, match=r"its index\.db was made by something else"):
        checked(tmp_path, repair=True)
    assert ((tmp_path / "index.db").read_bytes(), photo.read_bytes()) == (before, b"mine")


@pytest.mark.parametrize("offset", [60, 70, 100, 103, 107, 110])
def test_a_bit_of_the_databases_first_page_loses_nothing(path: Path, reference: Path, offset: int) -> None:
    database = path / "index.db"
    execute(path, "INSERT INTO feedback VALUES ('r', 'q', 'd', 1, 'w', NULL, 'told', 1.0, NULL)")
    flip(database, offset)
    damaged = database.read_bytes()
    found = checked(path, repair=True)
    assert found.left == []
    if kept := list(path.glob("damaged-*/index.db")):
        assert [each.read_bytes() for each in kept] == [damaged]
        assert any(kept[0].parent.name in note for note in found.notes)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT note FROM feedback").fetchall() == [("told",)]
    execute(path, "DELETE FROM feedback")
    assert_repaired(path, reference)


def test_who_opens_an_index_that_is_repaired_waits(path: Path) -> None:
    script = "import sys; from visrag.store.local import LocalStore; print('begins', flush=True); "
    script += "LocalStore.open(sys.argv[1]).close(); print('open', flush=True)"
    with alone(path):
        other = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
        assert other.stdout is not None
        assert other.stdout.readline() == "begins\n"
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate(timeout=60)[0] == "open\n"


def test_an_index_on_qdrant_is_not_checked() -> None:
    with pytest.raises(UsageError, match="Qdrant"):
        Index("qdrant://127.0.0.1:1/x").check()


def test_retry_keeps_where_a_document_came_from(tmp_path: Path, made: Path) -> None:
    file = pdf(tmp_path / "a.pdf", "walrus")
    with Index(tmp_path / "index", text=str(made / "model"), device="cpu") as index:
        index.ingest(file, settings=NO_OCR)
        execute(tmp_path / "index", "INSERT INTO failures SELECT id, 2, 'timeout', 'x' FROM generations")
        file.unlink()
        assert index.retry(settings=NO_OCR).failures == []
        assert index.documents()[0].path == str(file)


def test_flipped_bytes_anywhere_are_found_or_harmless(reference: Path, tmp_path: Path) -> None:
    """As many as are quick, without repairs: the index is as it was, or a check says that it is not."""
    chance = random.Random(5)
    for number in range(60):
        copy = Path(shutil.copytree(reference, tmp_path / str(number)))
        where = damage(copy, chance)
        try:
            with LocalStore.open(copy, clean=False) as store:
                found = store.find_damage().damage
        except Damaged:
            continue
        if not found:
            assert compare(copy, reference).problems == [], where
        shutil.rmtree(copy)


@pytest.mark.slow
def test_flipped_bytes_anywhere_are_repaired(reference: Path, made: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    for number in range(8):
        copy = Path(shutil.copytree(reference, tmp_path / str(number)))
        found = outcome(copy, reference, made / "in", damage(copy, chance))
        assert found.problems == [], found.where
        shutil.rmtree(copy)
