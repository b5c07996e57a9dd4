"""On real documents: a slice of the evaluation data. benchmarks/quality.py runs all of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from visrag import Index
from visrag.blas import one_blas_thread
from visrag.encode.text import TextEncoder
from visrag.evaluate import DEPTH, evaluate_questions, measure, read_beir
from visrag.ingest import Silent
from visrag.records import Page

pytestmark = [pytest.mark.data, pytest.mark.slow]

PAGES = 100  # of real documents, in all: with fewer, a question more or less decides


@pytest.mark.timeout(600)
def test_real_documents(data: Path, tmp_path: Path) -> None:
    questions = [json.loads(line) for line in (data / "dev" / "questions.jsonl").read_text().splitlines()]
    asked = Counter(question["doc"] for question in questions)
    documents = [json.loads(line) for line in (data / "dev" / "docs.jsonl").read_text().splitlines()]
    chosen, pages = [], 0
    for document in sorted(documents, key=lambda d: (-asked[d["doc"]] / d["pages"], d["doc"])):
        if document["text_layer"] and pages + document["pages"] <= PAGES:
            chosen.append(document)
            pages += document["pages"]
    names = {document["doc"] for document in chosen}
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps(question) for question in questions if question["doc"] in names))
    with Index(tmp_path / "index") as index:
        summary = index.ingest(*(data / "dev" / "pdfs" / name for name in sorted(names)))
        assert {d.name: d.pages for d in index.documents()} == {d["doc"]: d["pages"] for d in chosen}
        assert summary.pages + len(summary.failures) == pages
        found = {
            rank: evaluate_questions(index, file, rank, Silent())["ndcg@5"] for rank in ("fusion", "maxsim", "fulltext")
        }
    assert found["fusion"] > 0.6
    assert found["fusion"] > min(found["maxsim"], found["fulltext"])


@pytest.mark.timeout(600)
def test_int8_ranks_as_float32(data: Path, tmp_path: Path) -> None:
    passages, questions = read_beir(data / "text" / "scifact")
    questions = questions[:30]
    wanted = set().union(*(question.relevant for question in questions))
    kept = {name: passages[name] for name in passages if name in wanted}
    kept.update(list(passages.items())[:80])
    encoder = TextEncoder.load(device="cpu")
    names = list(kept)
    pages = encoder.encode_pages([Page(1, 0, 0, kept[name]) for name in names])
    exact, ours = [], []
    with Index(tmp_path / "index", device="cpu") as index:
        index.ingest_texts(kept)
        for question in questions:
            query = encoder.encode_query(question.text)["tokens"]
            with one_blas_thread():
                scores = [query.weights @ (query.vectors @ page["tokens"].vectors.T).max(axis=1) for page in pages]
            ranked = [names[i] for i in np.argsort(-np.array(scores), kind="stable")]
            exact.append(measure(question, ranked)["ndcg@10"])
            hits = [hit.document for hit in index.search(question.text, DEPTH, rank="maxsim")]
            ours.append(measure(question, hits)["ndcg@10"])
    assert np.mean(exact) > 0.8
    assert np.mean(ours) == pytest.approx(np.mean(exact), abs=0.01)
