"""What the Qdrant store must do beyond the contract: its URLs, sudden death, late writers, what the server is sent."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from store_cases import DIM, document, page, put, query, stored, unit
from store_places import NO_SERVER, SERVER, drop_collections, place_of

pytest.importorskip("qdrant_client", reason="the extra 'qdrant' is not installed")

from qdrant_client import models

from visrag.errors import IndexMismatch, MissingExtra, NotFound, StoreError, UsageError
from visrag.records import EncodedPage, Filter, Order, PageRef, PatchVectors, Piece, Places
from visrag.store import qdrant_cleaning, qdrant_connection
from visrag.store.opening import open_store as open_any
from visrag.store.qdrant import QdrantStore
from visrag.store.qdrant_address import Address
from visrag.store.qdrant_connection import Connection
from visrag.store.qdrant_pages import LARGEST, REQUEST
from visrag.store.qdrant_points import pooled
from visrag.store.qdrant_records import Records
from visrag.store.remote import Folder

ALL = Filter()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(tmp_path):
    return f"qdrant://{tmp_path}/qdrant/pages"


@pytest.fixture
def store(url):
    with QdrantStore.open(url, create=True) as opened:
        yield opened


def files(tmp_path):
    folder = tmp_path / "qdrant" / "pages.files"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def points(store):
    """How many points of pages there are, whether they can be seen or not."""
    return store._pages.count(models.Filter())


# Where it lies


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("qdrant://host/pages", {"host": "host", "port": 6333, "collection": "pages", "local": False}),
        ("qdrant://host:7000/a%20b", {"host": "host", "port": 7000, "collection": "a b"}),
        ("qdrant://[::1]:7000/pages", {"host": "::1", "port": 7000}),
        ("qdrant:///data/q/pages/", {"folder": "/data/q", "collection": "pages", "local": True}),
        ("qdrant://:memory:/pages", {"folder": ":memory:", "local": True}),
        ("qdrant://h/p?https=1&grpc=1&shards=3&replicas=2", {"https": True, "grpc": True, "shards": 3, "replicas": 2}),
        ("qdrant://h/p?files=s3%3A//bucket/x&api_key_env=KEY", {"files": "s3://bucket/x", "key_name": "KEY"}),
        ("qdrant://h/p", {"https": False, "grpc": False, "shards": 1, "key_name": "VISRAG_QDRANT_API_KEY"}),
    ],
)
def test_urls(url, expected):
    address = Address.parse(url)
    assert {name: getattr(address, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("qdrant://host", "write qdrant://host:6333/collection"),
        ("qdrant://host:6333/", "write qdrant://host:6333/collection"),
        ("qdrant://host:port/pages", "address cannot be read"),
        ("qdrant://host:99999/pages", "address cannot be read"),
        ("qdrant://host/pages.meta", "choose another"),
        ("qdrant://host/pages?shards=0", "from 1 to 1000"),
        ("qdrant://host/pages?shard=2", "has no setting shard"),
        ("qdrant://host/pages?grpc", "NAME=VALUE"),
        ("qdrant://host/pages?api_key=secret", "has no setting api_key"),
        ("qdrant://me:secret@host/pages", "VISRAG_QDRANT_API_KEY"),
    ],
)
def test_urls_that_cannot_be_used(url, told):
    with pytest.raises(UsageError, match=told) as caught:
        Address.parse(url)
    assert "secret" not in str(caught.value)


def test_what_is_no_index_is_not_made_one(tmp_path, url):
    with pytest.raises(StoreError, match=r"is not an index; make one with: visrag ingest"):
        open_any(url)
    assert list(tmp_path.iterdir()) == []
    QdrantStore.open(url, create=True).close()
    with pytest.raises(StoreError, match="other is not an index"):
        open_any(url.replace("/pages", "/other"))


def test_a_newer_format_is_refused(store, url):
    store._records.put_fields({"format": 99})
    with pytest.raises(IndexMismatch, match="newer version of visrag"):
        QdrantStore.open(url)


def test_everything_is_there_when_it_is_opened_again(url):
    rng = np.random.default_rng(0)
    asked = query(unit(rng, 3))
    with QdrantStore.open(url, create=True) as store:
        put(store, "a.pdf", [page(n, f"word{n} common", tokens=unit(rng, 30)) for n in (1, 2)])
        put(store, "b.pdf", [page(1, patches=unit(rng, 9, 8))])  # a leg that came later
        put(store, "gone.pdf", [page(1, tokens=unit(rng, 3))])
        store.remove("gone.pdf")
        before = store.candidates("tokens", asked, ALL, 9), store.candidates("fulltext", ["common"], ALL, 9)
        vectors = stored(store, "tokens", [PageRef("a.pdf", 1)])
    with open_any(url) as store:
        assert (store.candidates("tokens", asked, ALL, 9), store.candidates("fulltext", ["common"], ALL, 9)) == before
        np.testing.assert_array_equal(
            stored(store, "tokens", [PageRef("a.pdf", 1)])[PageRef("a.pdf", 1)], vectors[PageRef("a.pdf", 1)]
        )
        assert len(store.candidates("patches", query(unit(rng, 2, 8)), ALL, 9)) == 1
        assert [found.name for found in store.documents()] == ["a.pdf", "b.pdf"]


def test_one_process_at_a_time_in_local_mode(store, url):
    code = f"from visrag.store.opening import open_store; open_store({url!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "local mode serves one process at a time, a server many" in done.stderr


def test_without_the_package_the_cure_is_told():
    code = (
        "import sys; sys.modules['qdrant_client'] = None\n"
        "from visrag.store.opening import open_store\n"
        "open_store('qdrant://host/pages')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert MissingExtra.__name__ in done.stderr
    assert "pip install 'visrag[qdrant]'" in done.stderr


def test_a_folder_is_opened_without_qdrant():
    code = "import sys, visrag.store.opening; assert not {'qdrant_client', 'grpc', 'httpx'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_store_is_not_used_after_a_fork(store, monkeypatch):
    monkeypatch.setattr(qdrant_connection.os, "getpid", lambda: -1)
    with pytest.raises(StoreError, match="open it again here"):
        store.documents()
    monkeypatch.undo()


# A server that is not well


class _Answers(BaseHTTPRequestHandler):
    """Gives the statuses of ``server.statuses`` one after another, then 200; the body says that it is a Qdrant."""

    def do_GET(self):
        self.server.asked += 1
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        body = json.dumps({"title": "qdrant", "version": self.server.version, "result": {"exists": False}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with HTTPServer(("127.0.0.1", 0), _Answers) as running:
        running.statuses, running.version, running.asked = [], "1.20.0", 0
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def at(server):
    return f"qdrant://127.0.0.1:{server.server_port}/pages"


def test_a_call_that_failed_for_now_is_made_again(server):
    server.statuses = [503, 429, 500]
    with pytest.raises(StoreError, match="is not an index"):
        QdrantStore.open(at(server))
    assert server.asked == 5  # the version at the fourth time, then whether there is a collection


def test_a_server_that_is_not_there(server, monkeypatch):
    monkeypatch.setattr(qdrant_connection, "FIRST_PATIENCE", 0.3)
    where = at(server)
    server.socket.close()
    with pytest.raises(StoreError, match=rf"{where}: cannot be reached.*check the address"):
        QdrantStore.open(where)


def test_a_server_that_refuses(server):
    server.statuses = [401]
    with pytest.raises(StoreError, match="set the API key in VISRAG_QDRANT_API_KEY"):
        QdrantStore.open(at(server))
    assert server.asked == 1


def test_a_server_that_is_too_old(server):
    server.version = "1.15.4"
    with pytest.raises(StoreError, match=r"its Qdrant is 1\.15\.4; upgrade it to 1\.16"):
        QdrantStore.open(at(server))


# Pages


def test_rows_and_columns_of_a_grid_that_is_not_square_are_pooled_apart():
    """2 rows × 3 columns, the cell (row, col) is (row, 10 × col), and a vector without a place comes last."""
    cells = np.array([[row, 10 * col] for row in range(2) for col in range(3)], np.float32)
    vectors = np.vstack([cells, [[7, 7]]]).astype(np.float32)
    found = pooled(vectors, Places.on_grid(2, 3, np.arange(6, dtype=np.int32)))
    np.testing.assert_allclose(found, [[0, 10], [1, 10], [0.5, 0], [0.5, 10], [0.5, 20], [7, 7]])


def test_cells_without_a_vector_do_not_count_in_the_means():
    vectors = np.array([[2, 0], [4, 0], [0, 6]], np.float32)
    places = Places.on_grid(2, 2, np.array([0, 1, -1, 2], np.int32))  # (1, 0) is empty
    np.testing.assert_allclose(pooled(vectors, places), [[3, 0], [0, 6], [2, 0], [2, 3]])


def test_runs_of_vectors_are_pooled_and_short_pages_are_not():
    vectors = np.arange(17, dtype=np.float32).reshape(17, 1)
    nowhere = Places.of_boxes([], [])
    np.testing.assert_allclose(pooled(vectors, nowhere)[:, 0], [1.5, 5.5, 9.5, 13.5, 16])
    np.testing.assert_array_equal(pooled(vectors[:16], nowhere), vectors[:16])


def test_a_needle_in_one_patch_is_found_by_its_row_and_column(store):
    rng = np.random.default_rng(0)
    needle = unit(rng, 1, 64)
    pages = []
    for number in range(1, 301):
        vectors = 0.3 * unit(rng, 12, 64)
        if number == 123:
            vectors[7] = needle[0]
        patches = PatchVectors(vectors, Places.on_grid(3, 4, np.arange(12, dtype=np.int32)))
        pages.append(EncodedPage(page(number).page, {"patches": patches}, {}))
    put(store, "a.pdf", pages)
    assert store.candidates("patches", query(needle), ALL, 1)[0][0] == PageRef("a.pdf", 123)


def test_the_legs_of_the_settings_are_made_at_once(store):
    legs = [{"name": "tokens", "dim": 16}, {"name": "patches", "dim": 8}]
    store.write_settings({"legs": legs})
    put(store, "a.pdf", [page(1, tokens=unit(np.random.default_rng(0), 3))])
    assert store._pages.legs() == {"fulltext": 0, "tokens": 16, "patches": 8}


def test_a_page_with_too_many_vectors_is_recorded_with_its_model_and_the_rest_goes_in(store):
    store.write_settings({"legs": [{"name": "tokens", "dim": 4096, "encoder": "BigModel"}]})
    count = LARGEST // 4096
    generation = store.begin(document("a.pdf"))
    most, over = np.ones((count, 4096), np.float32), np.ones((count + 1, 4096), np.float32)
    store.add_pages(generation, [page(1, "fits", tokens=most), page(2, "too large", tokens=over), page(3, "small")])
    made = store.commit(generation, 3)
    assert (made.state, made.indexed, made.failed) == ("partial", 2, 1)
    [failure] = store.failures()
    assert (failure.document, failure.page, failure.reason) == ("a.pdf", 2, "too_large")
    assert "257 vectors of 4096 dimensions in tokens (BigModel) are 1,052,672 numbers" in failure.message
    assert store.candidates("fulltext", ["larg"], ALL, 9) == []


class Recording(Connection):
    """Notes what is asked."""

    def __init__(self, address):
        super().__init__(address)
        self.asked = []

    def call(self, method, **arguments):
        self.asked.append((method, arguments))
        return super().call(method, **arguments)

    def sent(self, method):
        return [arguments for name, arguments in self.asked if name == method]


def opened(connection, tmp_path):
    """A store over a connection of a test's own."""
    records = Records(connection)
    records.make()
    return QdrantStore(connection, records, Folder(tmp_path / "qdrant" / "pages.files"))


def json_bytes(points):
    """The size of an upsert over REST."""
    plain = [
        {
            "id": point.id,
            "payload": point.payload,
            "vector": {
                name: vector.model_dump() if isinstance(vector, models.SparseVector) else vector.tolist()
                for name, vector in point.vector.items()
            },
        }
        for point in points
    ]
    return len(json.dumps(plain))


def test_requests_are_bounded_in_bytes(url, tmp_path):
    rng = np.random.default_rng(0)
    connection = Recording(Address.parse(url))
    store = opened(connection, tmp_path)
    wide = [page(n, "text " * 50, tokens=unit(rng, 300, 384)) for n in range(1, 9)]
    put(store, "a.pdf", wide)
    batches = [
        arguments["points"] for arguments in connection.sent("upsert") if arguments["collection_name"] == "pages"
    ]
    assert [point.payload["page"] for batch in batches for point in batch] == list(range(1, 9))
    assert len(batches) > 1
    for batch in batches:
        assert json_bytes(batch) <= REQUEST
    store.close()


def test_a_page_that_fills_more_than_a_request_is_sent_vector_by_vector(url, tmp_path):
    rng = np.random.default_rng(0)
    connection = Recording(Address.parse(url))
    store = opened(connection, tmp_path)
    put(store, "a.pdf", [page(1, "word", tokens=unit(rng, 1800, 384), patches=unit(rng, 1800, 512))])
    assert len(connection.sent("update_vectors")) == 4
    assert store.vectors("tokens", PageRef("a.pdf", 1)).vectors.shape == (1800, 384)
    assert len(store.candidates("patches", query(unit(rng, 2, 512)), ALL, 9)) == 1
    store.close()


def test_candidates_of_a_leg_are_one_call_with_the_filter_at_both_stages(url, tmp_path):
    rng = np.random.default_rng(0)
    connection = Recording(Address.parse(url))
    store = opened(connection, tmp_path)
    put(store, "a.pdf", [page(1, tokens=unit(rng, 5))], tags={"k": "v"})
    staged = store.begin(document("b.pdf"))
    connection.asked.clear()
    store.candidates("tokens", query(unit(rng, 2)), Filter(frozenset({"a.pdf"}), {"k": "v"}), 5)
    [asked] = connection.sent("query_points")
    assert asked["using"] == "tokens"
    assert asked["prefetch"].using == "tokens.pooled"
    assert asked["prefetch"].filter == asked["query_filter"]
    told = asked["query_filter"].model_dump_json()
    assert all(part in told for part in ('["a.pdf"]', r"[\"k\", \"v\"]", str(staged)))
    assert asked["with_payload"] == ["document", "page", "generation"]
    store.close()


def test_a_question_whose_tokens_do_not_count_scores_nothing(store):
    rng = np.random.default_rng(0)
    put(store, "a.pdf", [page(n, tokens=unit(rng, 5)) for n in (1, 2)])
    silent = query(unit(rng, 3), [0, 0, 0])
    assert [score for _, score in store.candidates("tokens", silent, ALL, 9)] == [0, 0]


# Sudden death, and several at once


class Killed(BaseException):
    pass


class Dying(Connection):
    """Dies at a call."""

    left = 10**9

    def call(self, method, **arguments):
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().call(method, **arguments)


OLD = {PageRef("a.pdf", 1): 1.0, PageRef("a.pdf", 2): 1.0, PageRef("a.pdf", 3): 1.0}
NEW = {PageRef("a.pdf", 1): 2.0, PageRef("a.pdf", 2): 2.0}
AXIS = np.eye(DIM, dtype=np.float32)[:1]


def version(found):
    return [page(ref.page, f"common v{score:.0f}", tokens=AXIS * np.float32(score)) for ref, score in found.items()]


def seen(store):
    found = dict(store.candidates("tokens", query(AXIS), ALL, 99))
    texts = {ref for ref, _ in store.candidates("fulltext", ["common"], ALL, 99)}
    assert texts == set(found)
    assert store.page_count(ALL) == len(found)
    return {ref: pytest.approx(score) for ref, score in found.items()}


def replace_it(store, tmp_path):
    new = tmp_path / "new.pdf"
    new.write_bytes(b"new")
    generation = store.begin(document("a.pdf", "new"))
    store.add_pages(generation, version(NEW))
    store.put_image(generation, 1, Image.new("RGB", (4, 4)))
    store.put_original(new, "new", link=False)
    store.fail(generation, 3, "corrupt", "broken")
    store.commit(generation, 3)


def remove_it(store, tmp_path):
    store.remove("a.pdf")


def replace_by_queue(store, tmp_path):
    [generation] = store.enqueue([Order("a.pdf", "/in/a.pdf")])
    piece = store.claim(f"{generation}.ingest.0", "one", 60)
    store.describe(generation, document("a.pdf", "new", pages=2))
    store.put_parcel(Piece(generation, "text", (1, 2)), b"parcel")
    store.finish(piece, follow=[Piece(generation, "text", (1, 2))])
    text = store.claim(f"{generation}.text.1", "one", 60)
    assert store.finish(text, version(NEW)) == 0
    store.commit(generation, 2)


@pytest.mark.parametrize(
    ("work", "after"), [(replace_it, NEW), (remove_it, {}), (replace_by_queue, NEW)], ids=["replace", "remove", "queue"]
)
def test_a_process_that_dies_at_any_call_leaves_the_old_or_the_new(tmp_path, monkeypatch, work, after):
    monkeypatch.setattr(qdrant_cleaning, "DEAD", -1.0)  # whoever is not this object is dead
    outcomes, calls = set(), 0
    while True:
        folder = tmp_path / str(calls)
        connection = Dying(Address.parse(f"qdrant://{folder}/qdrant/pages"))
        store = opened(connection, folder)
        old = folder / "old.pdf"
        old.write_bytes(b"old")
        generation = store.begin(document("a.pdf", "old"))
        store.add_pages(generation, version(OLD))
        store.put_image(generation, 1, Image.new("RGB", (3, 3)))
        store.put_original(old, "old", link=False)
        store.commit(generation, 3)
        connection.left = calls
        try:
            work(store, folder)
            died = False
        except Killed:
            died = True
        with QdrantStore(
            Connection(connection.address), Records(connection), Folder(folder / "qdrant/pages.files")
        ) as other:
            connection.left = 10**9
            before = seen(other)
            assert before in (OLD, after)
            for job in other.jobs():
                other.abandon(job.generation)
            other.tidy()
            assert seen(other) == before
            assert points(other) == len(before)
            with_files = before == OLD or (before == NEW and work is replace_it)  # an original and an image
            assert len(files(folder)) == (2 if with_files else 0)
            if with_files:
                assert other.original("a.pdf").read_bytes() == other.document("a.pdf").content.encode()
            records = 1 + bool(before) + with_files + len(other.failures())  # state, document, image
            assert other._records.count() == records
            assert other.tidy() == 0
            replace_it(other, folder)
            assert seen(other) == NEW
            assert len(files(folder)) == 2
            outcomes.add(before == after)
        connection.close()
        if not died:
            break
        calls += 1
    assert outcomes == {True, False}
    assert calls > 5


class Interrupted(Connection):
    """Before a call, something else happens."""

    left, act = 10**9, None

    def call(self, method, **arguments):
        self.left -= 1
        if self.left == 0:
            self.act()
        return super().call(method, **arguments)


@pytest.mark.parametrize(
    ("act", "outcomes"),
    [
        (lambda other, generation: other.commit(generation, 3), [NEW]),
        (lambda other, generation: other.tidy(), [NEW]),
        (lambda other, generation: other.abandon(generation), [OLD, NEW]),
        (lambda other, generation: other.remove("a.pdf"), [{}]),
    ],
    ids=["commit", "tidy", "abandon", "remove"],
)
def test_whatever_another_does_at_any_call_of_a_commit_a_version_is_there_as_a_whole(tmp_path, act, outcomes):
    found, calls, over = [], 0, False
    while not over:
        calls += 1
        folder = tmp_path / str(calls)
        connection = Interrupted(Address.parse(f"qdrant://{folder}/qdrant/pages"))
        with opened(connection, folder) as store, QdrantStore.open(connection.address.url) as other:
            put(store, "a.pdf", version(OLD))
            generation = store.begin(document("a.pdf", "new"))
            store.add_pages(generation, version(NEW))
            connection.act, connection.left = partial(act, other, generation), calls
            try:
                committed = store.commit(generation, 3)
            except StoreError:
                committed = None
            over, connection.left = connection.left > 0, 10**9
            after = seen(other)
            assert after in outcomes or (over and after == NEW)
            assert after == NEW or committed is None or outcomes == [{}]
            other.tidy()
            assert seen(other) == seen(store) == after
            assert points(other) == len(after)
            kinds = sorted(payload["kind"] for payload in other._records.scroll(models.Filter()))
            assert kinds == [*["document"] * bool(after), "state"]
            found.append(after)
    assert calls > 5
    assert all(outcome in found for outcome in outcomes)


def test_a_collection_whose_indexes_are_not_there_yet_gets_them_from_whoever_comes(core, tmp_path):
    """Its maker died before it made them, or is about to; without one of generations pages cannot be counted by it."""

    class DyingMaker(Connection):
        def call(self, method, **arguments):
            if method == "create_payload_index" and arguments["collection_name"] == self.address.collection:
                raise Killed
            return super().call(method, **arguments)

    url = place_of("core", tmp_path, core)
    store = opened(DyingMaker(Address.parse(url)), tmp_path)
    with pytest.raises(Killed):
        put(store, "a.pdf", [page(1, "common", tokens=AXIS)])
    with QdrantStore.open(url) as reader:
        assert [(found.name, found.state, found.indexed) for found in reader.documents()] == [("a.pdf", "ingesting", 0)]
        assert reader.candidates("fulltext", ["common"], ALL, 9) == []
    with QdrantStore.open(url, create=True) as writer:
        put(writer, "b.pdf", [page(1, "common", tokens=AXIS)])
        assert seen(writer) == {PageRef("b.pdf", 1): 1.0}
    drop_collections(url)


def test_what_a_late_writer_leaves_is_not_found_and_goes(store):
    rng = np.random.default_rng(0)
    put(store, "a.pdf", [page(1, "common", tokens=unit(rng, 5))])
    generation = store.begin(document("b.pdf"))
    staged = store._records.staged(generation)
    store.abandon(generation)
    late = [page(n, "common", tokens=unit(rng, 5)) for n in (1, 2)]
    store._pages.write(staged, late, store.settings)  # as if it had been under way, and its process died of it
    assert points(store) == 3
    assert [ref for ref, _ in store.candidates("tokens", query(unit(rng, 2)), ALL, 2)] == [PageRef("a.pdf", 1)]
    assert [ref for ref, _ in store.candidates("fulltext", ["common"], ALL, 1)] == [PageRef("a.pdf", 1)]
    store.tidy()
    assert points(store) == 1


def test_a_writer_that_notices_that_it_is_late_takes_its_pages_back(url, tmp_path):
    rng = np.random.default_rng(0)

    class Late(Connection):
        """Another process abandons the generation just before the pages come in."""

        doomed = None

        def call(self, method, **arguments):
            if method == "upsert" and arguments["collection_name"] == "pages" and self.doomed is not None:
                generation, self.doomed = self.doomed, None
                store.abandon(generation)
            return super().call(method, **arguments)

    connection = Late(Address.parse(url))
    store = opened(connection, tmp_path)
    put(store, "a.pdf", [page(1, tokens=unit(rng, 3))])
    connection.doomed = generation = store.begin(document("b.pdf"))
    with pytest.raises(StoreError, match="not being written"):
        store.add_pages(generation, [page(1, tokens=unit(rng, 3))])
    assert points(store) == 1
    store.close()


def test_two_commits_at_once_leave_one_version(store, url):
    failed = []

    def work(k):
        try:
            with QdrantStore.open(url) as mine:
                for i in range(8):
                    count = 1 + (k + i) % 3
                    put(
                        mine, "a.pdf", [page(n, "common", tokens=AXIS * np.float32(count)) for n in range(1, count + 1)]
                    )
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    found = seen(store)
    assert list(found.values()) == [float(len(found))] * len(found)
    assert points(store) == len(found) == store.document("a.pdf").indexed
    assert store.tidy() == 0


def test_a_document_that_is_removed_while_it_is_committed_is_gone(store, url):
    failed, done = [], threading.Event()

    def remove():
        with QdrantStore.open(url) as mine:
            while not done.is_set():
                try:
                    mine.remove("a.pdf")
                except NotFound:
                    pass
                except BaseException as error:
                    failed.append(error)

    thread = threading.Thread(target=remove)
    thread.start()
    for _ in range(15):
        try:
            put(store, "a.pdf", [page(1, "common", tokens=AXIS)])
        except StoreError as error:
            assert "removed" in str(error)  # noqa: PT017
    done.set()
    thread.join()
    assert failed == []
    left = store.document("a.pdf")
    assert points(store) == (0 if left is None else 1)
    assert len(seen(store)) == points(store)


def test_a_processes_generation_is_taken_for_dead_after_a_day_without_a_sign(store, url, monkeypatch):
    generation = store.begin(document("a.pdf"))
    with QdrantStore.open(url, create=True) as other:
        assert other.tidy() == 0
        other._records.change_staged(generation, {"touched": 0.0})
        assert other.tidy() == 1
        assert other.documents() == []


# Files


def test_originals_and_images_go_with_their_document(store, tmp_path):
    source = tmp_path / "source.pdf"
    source.write_bytes(b"%PDF the content")
    content = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(StoreError, match="no document of this content"):
        store.put_original(source, content, link=False)
    for name in ("a.pdf", "b.pdf"):
        generation = store.begin(document(name, content))
        store.add_pages(generation, [page(1)])
        store.put_image(generation, 1, Image.new("RGB", (40, 30), (200, 10, 10)))
        store.put_original(source, content, link=False)
        assert store.image_path(PageRef(name, 1)) is None
        store.commit(generation, 1)
    assert store.original("a.pdf").read_bytes() == source.read_bytes()
    with Image.open(store.image_path(PageRef("a.pdf", 1))) as image:
        assert image.size == (40, 30)
        assert image.convert("RGB").getpixel((20, 15))[0] > 190
    store.remove("a.pdf")
    assert len(files(tmp_path)) == 2
    assert store.original("b.pdf").read_bytes() == source.read_bytes()
    put(store, "b.pdf", [page(1)], content="changed")
    assert files(tmp_path) == []
    with pytest.raises(NotFound, match=r"b\.pdf"):
        store.original("b.pdf")


def test_a_linked_original_stays_where_it_is(store, tmp_path):
    source = tmp_path / "caf\udce9.pdf"  # a name of any bytes
    source.write_bytes(b"%PDF")
    generation = store.begin(document("a.pdf", "hash", path=str(source)))
    store.put_original(source, "hash", link=True)
    assert store.commit(generation, 0).path == str(source)
    assert store.original("a.pdf") == source
    assert files(tmp_path) == []
    source.unlink()
    with pytest.raises(NotFound, match="gone"):
        store.original("a.pdf")


def test_where_the_files_lie_is_remembered(url, tmp_path):
    files_url = "memory://originals"
    source = tmp_path / "source.pdf"
    source.write_bytes(b"%PDF")
    with QdrantStore.open(f"{url}?files={files_url}", create=True) as store:
        generation = store.begin(document("a.pdf", "hash"))
        store.put_original(source, "hash", link=False)
        store.commit(generation, 0)
        with QdrantStore.open(url) as other:
            assert other._files.url == files_url
            assert other.original("a.pdf").read_bytes() == b"%PDF"


# Only a server


@pytest.mark.skipif(not SERVER, reason=NO_SERVER)
def test_what_a_collection_is_made_with(tmp_path):
    url = str(place_of("server", tmp_path)) + "&shards=2"
    try:
        with QdrantStore.open(url, create=True) as store:
            put(store, "a.pdf", [page(1, "word", tokens=unit(np.random.default_rng(0), 5))])
            put(store, "b.pdf", [page(1, "word", patches=unit(np.random.default_rng(0), 5, 8))])
            found = store._connection.call("get_collection", collection_name=store._pages.collection)
    finally:
        drop_collections(url)
    assert found.config.params.shard_number == 2
    assert found.config.params.on_disk_payload
    for leg in ("tokens", "patches"):
        full, few = (found.config.params.vectors[leg + end] for end in ("", ".pooled"))
        assert (full.hnsw_config.m, full.on_disk, few.on_disk) == (0, True, True)
        assert few.quantization_config.scalar.type == models.ScalarType.INT8
        assert {each.distance for each in (full, few)} == {models.Distance.DOT}
        assert {each.multivector_config.comparator for each in (full, few)} == {models.MultiVectorComparator.MAX_SIM}
    assert found.config.params.sparse_vectors["fulltext"].modifier == models.Modifier.IDF
    assert set(found.payload_schema) == {"document", "generation", "tags"}
