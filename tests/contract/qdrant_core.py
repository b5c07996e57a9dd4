"""Qdrant's own core behind Qdrant's REST interface, for tests: python qdrant_core.py PORT FOLDER

The core is the package qdrant-edge-py (Apache-2.0), the code that a Qdrant server runs in each of its shards. So what
is computed is Qdrant's: filters, updates under conditions, facets and orders with the indexes that they need, MaxSim,
prefetches, sparse vectors and their idf. Any number of processes reach it over HTTP, and a collection's updates are
made one after the other.

It is not a server. There is no cluster: no shards, replicas or consistency. Nothing is optimised or quantised: vectors
are compared one by one as they are, and a collection's other settings are only given back as they came. There is no
gRPC, there are no API keys, and what a request says that is not known here makes it fail. VISRAG_TEST_QDRANT_URL,
where it is set, runs the same tests against a real server.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import qdrant_edge as edge
from qdrant_edge import UpdateOperation as Update

VERSION = "1.19.0"  # of servers, the first that counts the idf over the pages that a filter lets through
LARGEST = 32 * 2**20  # bytes of a request, as a server has it
TYPES = {name: getattr(edge.PayloadSchemaType, name.title()) for name in ("keyword", "integer", "float", "bool")}
MODIFIERS = {"idf": edge.Modifier.Idf}
HNSW = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000}
OPTIMIZER = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
             "flush_interval_sec": 5}  # fmt: skip

Told: TypeAlias = dict[str, Any]  # a part of a request, or of an answer


# What a request says, as the core takes it


def given(told: Told) -> Told:
    """Without what was left open."""
    return {name: value for name, value in told.items() if value is not None}


def filter_of(told: Told) -> edge.Filter:
    clauses: Told = {name: clause if isinstance(clause, list) else [clause] for name, clause in given(told).items()}
    parts: Told = {name: [condition_of(each) for each in clause] for name, clause in clauses.items()}
    return edge.Filter(**parts)


def condition_of(told: Told) -> Any:
    match given(told):
        case {"has_id": ids}:
            return edge.HasIdCondition(set(ids))
        case {"key": key, "range": limits}:
            return edge.FieldCondition(key, range=edge.RangeFloat(**given(limits)))
        case {"key": key, "match": {"value": value}}:
            return edge.FieldCondition(key, match=edge.MatchValue(value))
        case {"key": key, "match": {"any": values}}:
            return edge.FieldCondition(key, match=edge.MatchAny(values))
        case nested:
            return filter_of(nested)


def vector_of(told: Any) -> Any:
    return edge.SparseVector(**told) if isinstance(told, dict) else told


def vectors_of(told: Told) -> Told:
    return {name: vector_of(vector) for name, vector in told.items()}


def params_of(told: Told) -> edge.SearchParams:
    parts = given(told)
    if "quantization" in parts:
        parts["quantization"] = edge.QuantizationSearchParams(**given(parts["quantization"]))
    if "idf" in parts:
        parts["idf"] = edge.IdfParams(corpus=filter_of(parts["idf"]["corpus"]))
    return edge.SearchParams(**parts)


def asked(told: Told) -> Told:
    """The parts of a question."""
    parts = given(told)
    if "query" in parts:
        parts["query"] = edge.Query.Nearest(vector_of(parts["query"]["nearest"]), using=parts.pop("using"))
    if "prefetch" in parts:
        parts["prefetches"] = [edge.Prefetch(**asked(parts.pop("prefetch")))]
    if "order_by" in parts:
        parts["order_by"] = edge.OrderBy(**given(parts["order_by"]))
    known: dict[str, Callable[[Told], Any]] = {"filter": filter_of, "params": params_of}
    return parts | {name: known[name](part) for name, part in parts.items() if name in known}


def dense(told: Told) -> Told:
    """The parameters of a vector, or of a multivector."""
    assert told["distance"] == "Dot"
    maxsim = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if told.get("multivector_config") else None
    return {"size": told["size"], "distance": edge.Distance.Dot, "multivector_config": maxsim}


# What the core says, as a server tells it


def plain(vector: Any) -> Any:
    """A vector, or vectors by name."""
    if isinstance(vector, edge.SparseVector):
        return {"indices": list(vector.indices), "values": list(vector.values)}
    return {name: plain(each) for name, each in vector.items()} if isinstance(vector, dict) else vector


def record(point: edge.Record | edge.ScoredPoint) -> Told:
    scored = {"score": point.score, "version": point.version} if isinstance(point, edge.ScoredPoint) else {}
    return {"id": str(point.id), "payload": point.payload, "vector": plain(point.vector), **scored}


class Collection:
    """Each public method answers a request, whose body's parts are its arguments."""

    def __init__(self, folder: Path, vectors: Told, sparse_vectors: Told | None = None, **others: Any) -> None:
        self._settings = {"vectors": vectors, "sparse_vectors": sparse_vectors, **others}
        full = {name: edge.EdgeVectorParams(**dense(each)) for name, each in vectors.items()}
        sparse = {name: edge.EdgeSparseVectorParams(modifier=MODIFIERS[each["modifier"]])
                  for name, each in (sparse_vectors or {}).items()}  # fmt: skip
        config = edge.EdgeConfig(full, sparse, wal_enabled=False, max_search_threads=1)
        self.shard = edge.EdgeShard.create(str(folder), config)
        self._lock = threading.Lock()

    def _update(self, operation: Update) -> Told:
        with self._lock:
            self.shard.update(operation)
        return {"operation_id": 0, "status": "completed"}

    def describe(self) -> Told:
        info, types = self.shard.info(), {str(each): name for name, each in TYPES.items()}
        schema = {key: {"data_type": types[str(index.data_type)], "points": index.points}
                  for key, index in info.payload_schema.items()}  # fmt: skip
        config = {"params": self._settings, "hnsw_config": HNSW, "optimizer_config": OPTIMIZER}
        return {"status": "green", "optimizer_status": "ok", "segments_count": info.segments_count,
                "points_count": info.points_count, "payload_schema": schema, "config": config}  # fmt: skip

    def configure(self, vectors: Told) -> bool:
        for name, changes in vectors.items():
            self._settings["vectors"][name] |= given(changes)
        return True

    def add_index(self, field_name: str, field_schema: str) -> Told:
        return self._update(Update.create_field_index(field_name, TYPES[field_schema]))

    def add_vector(self, vector_name: str, **config: Told) -> Told:
        answer = self._update(Update.create_dense_vector(vector_name, **dense(config["dense"])))
        self._settings["vectors"].setdefault(vector_name, config["dense"])
        return answer

    def upsert(self, points: list[Told], update_filter: Told | None = None) -> Told:
        written = [edge.Point(each["id"], vectors_of(each["vector"]), each["payload"]) for each in points]
        condition = None if update_filter is None else filter_of(update_filter)
        return self._update(Update.upsert_points(written, condition))

    def update_vectors(self, points: list[Told]) -> Told:
        written = [edge.PointVectors(each["id"], vectors_of(each["vector"])) for each in points]
        return self._update(Update.update_vectors(written))

    def set_payload(self, payload: Told, filter: Told) -> Told:
        return self._update(Update.set_payload_by_filter(filter_of(filter), payload))

    def overwrite_payload(self, payload: Told, filter: Told) -> Told:
        return self._update(Update.overwrite_payload_by_filter(filter_of(filter), payload))

    def delete(self, filter: Told) -> Told:
        return self._update(Update.delete_points_by_filter(filter_of(filter)))

    def retrieve(self, ids: list[edge.PointId], with_payload: Any = True, with_vector: Any = False) -> list[Told]:
        return [record(point) for point in self.shard.retrieve(ids, with_payload, with_vector)]

    def scroll(self, **request: Any) -> Told:
        points, offset = self.shard.scroll(edge.ScrollRequest(**asked(request)))
        return {"points": [record(point) for point in points], "next_page_offset": offset and str(offset)}

    def count(self, **request: Any) -> Told:
        return {"count": self.shard.count(edge.CountRequest(**asked(request)))}

    def facet(self, **request: Any) -> Told:
        found = self.shard.facet(edge.FacetRequest(**asked(request)))
        return {"hits": [{"value": hit.value, "count": hit.count} for hit in found.hits]}

    def query(self, **request: Any) -> Told:
        return {"points": [record(point) for point in self.shard.query(edge.QueryRequest(**asked(request)))]}


ROUTES: dict[str, Callable[..., Any]] = {
    "GET ": Collection.describe, "PATCH ": Collection.configure,
    "PUT index": Collection.add_index, "PUT vectors": Collection.add_vector,
    "PUT points": Collection.upsert, "POST points": Collection.retrieve,
    "PUT points/vectors": Collection.update_vectors, "POST points/delete": Collection.delete,
    "POST points/payload": Collection.set_payload, "PUT points/payload": Collection.overwrite_payload,
    "POST points/scroll": Collection.scroll, "POST points/count": Collection.count,
    "POST points/query": Collection.query, "POST facet": Collection.facet,
}  # fmt: skip


class Refused(Exception):
    """With an HTTP status, and why."""


class Core(ThreadingHTTPServer):
    """Collections that lie in a folder."""

    request_queue_size = 100

    def __init__(self, port: int, folder: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self._folder, self._lock = folder, threading.Lock()
        self._collections: dict[str, Collection] = {}

    def answer(self, method: str, name: str, rest: list[str], body: Told) -> Any:
        """Of a collection. Raises Refused, and whatever the core raises."""
        if rest[:1] == ["vectors"]:
            body["vector_name"] = rest.pop()
        asked = f"{method} {'/'.join(rest)}"
        with self._lock:
            there = name in self._collections
            if asked == "GET exists":
                return {"exists": there}
            if asked == "PUT ":
                if there:
                    raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
                self._collections[name] = Collection(self._folder / name, **given(body))
                return True
            if asked == "DELETE ":
                if there:
                    self._collections.pop(name).shard.close()
                    shutil.rmtree(self._folder / name)
                return there
        if not there:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        return ROUTES[asked](self._collections[name], **given(body))


class Handler(BaseHTTPRequestHandler):
    server: Core
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # the head and the body in one packet

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("content-length") or 0))
        told: Told = {"title": "Qdrant's core", "version": VERSION, "status": "ok", "time": 0.0}
        status, path = 200, [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        try:
            if len(sent) > LARGEST:
                raise Refused(413, f"Payload reached size limit: {len(sent)} bytes")
            if path:  # "collections", a name, and more
                told["result"] = self.server.answer(self.command, path[1], path[2:], json.loads(sent or "{}"))
        except Refused as error:
            status, told["status"] = error.args[0], {"error": error.args[1]}
        except Exception as error:
            status, told["status"] = 400, {"error": repr(error)}
            self.log_message("%s %s: %r\n%.1000s", self.command, self.path, error, sent)
        data = json.dumps(told).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST = do_PATCH = do_DELETE = do_GET


if __name__ == "__main__":
    server = Core(int(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(f"http://127.0.0.1:{server.server_port} is ready.\n")
    sys.stdout.flush()
    server.serve_forever()
