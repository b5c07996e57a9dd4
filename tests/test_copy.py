"""An index copied: from a folder to Qdrant and back, again, halfway, into one of other models."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")

from visrag.cli import main
from visrag.copy import copy_index
from visrag.errors import IndexMismatch, NotFound, StoreError, UsageError
from visrag.ingest import Silent
from visrag.records import (
    Document,
    EncodedPage,
    Feedback,
    Filter,
    Page,
    PageRef,
    PatchVectors,
    Places,
    QueryVectors,
    Word,
)
from visrag.store.opening import open_store

ALL = Filter()
LEGS = [
    {"name": "tokens", "encoder": "small", "dim": 16, "fingerprint": "t1"},
    {"name": "patches", "encoder": "large", "dim": 8, "fingerprint": "p1"},
]
SETTINGS = {"format": 1, "models": {"text": "small"}, "legs": LEGS, "levels": {"tokens": [0.1, 0.2]}, "canaries": {}}


def unit(rng, n, dim):
    vectors = rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def page(rng, number, text):
    word = Word(text.split()[0], 0, ((0.1, 0.2, 0.3, 0.4),))
    tokens = PatchVectors(unit(rng, 20, 16), Places.of_boxes([(0, 0, 1, 1)] * 5, np.arange(5, dtype=np.int32)))
    patches = PatchVectors(unit(rng, 6, 8), Places.on_grid(2, 3, np.arange(6, dtype=np.int32)))
    legs = {"tokens": tokens} if number == 1 else {"tokens": tokens, "patches": patches}
    shown = Page(number, 612.0, 792.0, text, (word,), "text_layer", 0.25)
    return EncodedPage(shown, legs, {"tokens": 0.125, "patches": -0.5} if number > 1 else {"tokens": 0.125})


def put(store, name, pages, content, tmp_path, link=False, failures=()):
    file = tmp_path / f"{content}.pdf"
    file.write_bytes(content.encode())
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    document = Document(
        name, content, "settings", "application/pdf", {"year": "2024"}, path=str(file), renderer="pdfium"
    )
    generation = store.begin(document)
    store.add_pages(generation, pages)
    for number in failures:
        store.fail(generation, number, "corrupt", f"page {number} is broken")
    store.put_original(file, content, link)
    store.put_image(generation, 1, Image.new("RGB", (8, 6), (250, 0, 0)))
    return store.commit(generation, len(pages) + len(failures))


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    with open_store(tmp_path / "source", create=True) as store:
        store.write_settings(SETTINGS)
        put(store, "a.pdf", [page(rng, n, f"word{n} common") for n in range(1, 41)], "one", tmp_path, failures=[41])
        put(store, "ü/b.pdf", [page(rng, 1, "common text")], "two", tmp_path, link=True)
        store.begin(Document("on its way.pdf", "", "", ""))
    return tmp_path / "source"


def url(tmp_path, name="copy"):
    return f"qdrant://{tmp_path}/qdrant/{name}"


def everything(where, rng_seed=1):
    """What an index holds and answers."""
    asked = QueryVectors(unit(np.random.default_rng(rng_seed), 3, 16), ("x", "y", "z"), np.ones(3, np.float32))
    with open_store(where) as store:
        documents = store.documents()
        refs = [PageRef(each.name, n) for each in documents for n in range(1, each.pages + 1)]
        pages, vectors = {}, {}
        for ref in refs:
            try:
                pages[ref] = store.page(ref)
            except NotFound:
                continue
            for leg in ("tokens", "patches"):
                if (found := store.vectors(leg, ref)) is not None:
                    vectors[leg, ref] = found
        return {
            "documents": documents,
            "failures": store.failures(),
            "settings": store.settings(),
            "pages": pages,
            "vectors": vectors,
            "chance": {leg: np.nan_to_num(store.chance(leg, refs), nan=9).tolist() for leg in ("tokens", "patches")},
            "found": [ref for ref, _ in store.candidates("tokens", asked, ALL, 10)],
            "originals": {each.name: store.original(each.name).read_bytes() for each in documents},
            "linked": {each.name: str(store.original(each.name)) == each.path for each in documents},
            "images": sorted(ref for ref in refs if store.image_path(ref) is not None),
        }


def test_to_qdrant_and_back_nothing_changes(source, tmp_path):
    first = copy_index(source, url(tmp_path))
    second = copy_index(url(tmp_path), tmp_path / "back")
    for summary in (first, second):
        assert (summary.documents, summary.pages, summary.unchanged, summary.failures) == (2, 41, 0, [])
    before = everything(source)
    assert [each.name for each in before["documents"]] == ["a.pdf", "ü/b.pdf"]
    assert before["linked"] == {"a.pdf": False, "ü/b.pdf": True}
    assert len(before["vectors"]) == 41 + 39
    for after in (everything(url(tmp_path)), everything(tmp_path / "back")):
        assert {name: after[name] for name in after if name != "vectors"} == {
            name: before[name] for name in before if name != "vectors"
        }
        assert after["vectors"].keys() == before["vectors"].keys()
        for key, found in after["vectors"].items():
            expected = before["vectors"][key]
            np.testing.assert_allclose(found.vectors, expected.vectors, rtol=1e-6)
            assert found.places.grid == expected.places.grid
            np.testing.assert_array_equal(found.places.vectors, expected.places.vectors)
            np.testing.assert_array_equal(found.places.boxes(), expected.places.boxes())


def test_what_is_the_same_is_passed_over_and_what_changed_is_replaced(source, tmp_path):
    copy_index(source, url(tmp_path))
    again = copy_index(source, url(tmp_path))
    assert (again.documents, again.unchanged) == (0, 2)
    with open_store(source) as store:
        put(store, "a.pdf", [page(np.random.default_rng(5), 1, "changed")], "three", tmp_path)
    changed = copy_index(source, url(tmp_path))
    assert (changed.documents, changed.pages, changed.unchanged) == (1, 1, 1)
    assert everything(url(tmp_path))["pages"] == everything(source)["pages"]
    with open_store(source) as store:
        put(store, "a.pdf", [page(np.random.default_rng(5), 1, "changed")], "three", tmp_path, failures=[2])
    assert copy_index(source, url(tmp_path)).documents == 1  # of the same content, with another outcome


def test_feedback_is_copied_unless_the_target_has_newer(source, tmp_path):
    said = Feedback("q", "a.pdf", 1, "relevant", "ünsure", "spring", "ann", 100.0)
    gone = Feedback("q", "removed.pdf", 7, None, "was it here?", time=50.5)
    with open_store(source) as store:
        store.judge(said)
        store.judge(gone)
    copy_index(source, url(tmp_path))
    copy_index(url(tmp_path), tmp_path / "back")
    for where in (url(tmp_path), tmp_path / "back"):
        with open_store(where) as store:
            assert store.feedback() == [gone, said]
    newer = replace(said, verdict="not_relevant", time=200.0)
    other = replace(said, reviewer="bob", time=1.0)
    with open_store(url(tmp_path)) as store:
        store.judge(newer)
        store.judge(other)
    later = replace(gone, verdict="relevant", time=60.0)
    with open_store(source) as store:
        store.judge(later)
    again = copy_index(source, url(tmp_path))
    assert (again.documents, again.unchanged) == (0, 2)
    with open_store(url(tmp_path)) as store:
        assert store.feedback() == [other, later, newer]


class _Stop(Silent):
    def finish(self, source):
        raise KeyboardInterrupt


def test_a_copy_that_was_stopped_goes_on(source, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        copy_index(source, url(tmp_path), _Stop())
    with open_store(url(tmp_path)) as store:
        assert [(each.name, each.state) for each in store.documents()] == [("a.pdf", "partial")]
    summary = copy_index(source, url(tmp_path))
    assert (summary.documents, summary.unchanged) == (1, 1)


def test_an_index_of_other_models_is_refused(source, tmp_path):
    with open_store(tmp_path / "other", create=True) as store:
        store.write_settings({**SETTINGS, "legs": [{**LEGS[0], "fingerprint": "t2"}]})
    with pytest.raises(IndexMismatch, match="copy into a new index"):
        copy_index(source, tmp_path / "other")


def test_what_cannot_be_copied(source, tmp_path):
    with pytest.raises(UsageError, match="into itself"):
        copy_index(source, f"{source}/")
    with pytest.raises(StoreError, match="is not an index"):
        copy_index(tmp_path / "none", url(tmp_path))
    assert not (tmp_path / "qdrant").exists()


def test_a_page_that_is_too_large_for_qdrant_is_told_and_not_tried_again(tmp_path):
    big = PatchVectors(np.ones((70_000, 16), np.float32), Places.of_boxes([], []))
    with open_store(tmp_path / "source", create=True) as store:
        store.write_settings(SETTINGS)
        pages = [page(np.random.default_rng(0), 1, "small"), EncodedPage(Page(2, 1, 1), {"tokens": big}, {})]
        put(store, "a.pdf", pages, "one", tmp_path)
    first = copy_index(tmp_path / "source", url(tmp_path))
    assert [(failure.page, failure.reason) for failure in first.failures] == [(2, "too_large")]
    assert first.pages == 1
    again = copy_index(tmp_path / "source", url(tmp_path))
    assert (again.documents, again.unchanged, again.failures) == (0, 1, [])


def test_the_command(source, tmp_path):
    run = CliRunner().invoke(main, ["copy", str(source), url(tmp_path), "--json"])
    assert run.exit_code == 0
    told = json.loads(run.stdout)
    assert (told["documents"], told["pages"], told["unchanged"], told["failures"]) == (2, 41, 0, [])
    again = CliRunner().invoke(main, ["copy", str(source), url(tmp_path)])
    assert "documents 0, pages 0, unchanged 2" in again.stderr
    wrong = CliRunner().invoke(main, ["copy", str(source), "qdrant://host"])
    assert wrong.exit_code == 2
    assert "write qdrant://host:6333/collection" in wrong.stderr
