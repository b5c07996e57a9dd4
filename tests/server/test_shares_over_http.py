"""The account of a score over HTTP: what words and image patches gave adds up to it, and is where the heatmap says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from checkpoints import make_checkpoint
from pdfs import pdf_bytes, rectangle, text, write
from serving import Server, serving

from visrag import Index, IngestSettings
from visrag.server.schemas import AccountOf, AnswerOf, Heat

EXACT = 1e-3
RANKS = ("fusion", "maxsim", "fulltext")
QUESTIONS = [
    "What does a year pass cost?",
    "When did frost damage the orchard plots?",
    "costs, costs & COSTS: café — what?!",
    "図書館は何時に開きますか",
    "NOT the library's opening hours (2024) €5",
]
ASKED = ["capital expenditure in 2018", "Which table shows the costs of transport by year?", "revenue? north-region!"]

Places = dict[str, tuple[Server, str]]


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of an index of pictures and text, by tiny models."""
    folder = tmp_path_factory.mktemp("patches")
    models = {name: str(make_checkpoint(family, folder / name))
              for name, family in (("text", "ColBERT"), ("vision", "ColQwen2ForRetrieval"))}  # fmt: skip
    words = [
        text(72, 760, "The capital expenditure in 2018"),
        text(72, 760, "Costs by year"),
        text(72, 760, "North region"),
    ]
    drawn = [
        "".join(rectangle(50 + 55 * n, 80 + 50 * m, 55, 50, f"{(n * seed) % 5 / 5} {m / 9} 0.{seed}")
                for n in range(9) for m in range(9))
        for seed in (1, 2, 3)
    ]  # fmt: skip
    report = write(folder / "report.pdf", pdf_bytes([words[0], *(drawn[n] + words[n] for n in range(3))]))
    with Index(folder / "index", **models, device="cpu") as index:
        assert index.ingest(report, settings=IngestSettings(ocr="off", jobs=1)).failures == []
    options = [part for name in models for part in (f"--{name}", models[name])]
    with serving(
        folder / "server", {"samples": folder / "index"}, *options, "--no-ingest", "--device", "cpu"
    ) as server:
        yield server


def adds_up(question: str, told: dict[str, Any]) -> None:
    """That shares, legs and tokens add up to the score."""
    assert sum(leg["weight"] * leg["score"] for leg in told["legs"]) == pytest.approx(told["score"], abs=EXACT)
    for leg in told["legs"]:
        assert sum(token["score"] for token in leg["token_scores"]) == pytest.approx(leg["score"], abs=EXACT)
    assert sum(share["score"] for share in told["shares"]) == pytest.approx(told["score"], abs=EXACT)
    scores = [share["score"] for share in told["shares"]]
    assert scores == sorted(scores, reverse=True)
    for share in told["shares"]:
        if share["start"] is not None:
            assert question[share["start"] : share["end"]] == share["word"]
    spans = [share["start"] for share in told["shares"]]
    assert len({start for start in spans if start is not None}) == len([start for start in spans if start is not None])


def where_the_heatmap_says(told: dict[str, Any], heat: dict[str, Any]) -> int:
    """That each token of the plain leg that won at a place of the page gave what the heatmap has there: how many."""
    legs = [leg for leg in told["legs"] if leg["leg"] == heat["leg"]]
    if not legs:
        return 0
    weighed = [token for token in heat["tokens"] if token["weight"]]
    scores = legs[0]["token_scores"]
    won = 0
    for one, other in zip(scores, weighed, strict=True):
        assert one["token"].removeprefix("##") == other["token"]
        best = max(value for value in other["values"] if value is not None) * other["weight"]
        if one["box"] is not None:
            assert one["score"] == pytest.approx(best, abs=EXACT)
            won += 1
        else:  # by what is at no place: a mark of the page's beginning
            assert one["score"] > best - EXACT
    return won


def check(server: Server, question: str, rank: str) -> set[str]:
    """All hits of a question: the legs that there were."""
    client = server.client()
    path = "/v1/collections/samples"
    body = {"question": question, "k": 10, "rank": rank, "include": ["heatmap", "text"]}
    answer = client.post(f"{path}/search", json=body).json()
    params: dict[str, Any] = {"q": question, "k": 10, "rank": rank}
    asked = client.get(f"{path}/search", params=params).json()
    assert [hit["score"] for hit in asked["hits"]] == pytest.approx([hit["score"] for hit in answer["hits"]], abs=EXACT)
    assert set(answer) == set(AnswerOf.model_validate(answer, strict=True).model_dump())
    legs = set()
    for hit in answer["hits"]:
        adds_up(question, hit)
        legs |= {leg["leg"] for leg in hit["legs"]}
        page = f"{path}/documents/{hit['id']}/pages/{hit['page']}"
        account = client.get(f"{page}/account", params={"q": question, "rank": rank}).json()
        assert set(account) == set(AccountOf.model_validate(account, strict=True).model_dump())
        adds_up(question, account)
        assert account["score"] == pytest.approx(hit["score"], abs=EXACT)
        assert [share["word"] for share in account["shares"]] == [share["word"] for share in hit["shares"]]
        heat = client.get(f"{page}/heatmap", params={"q": question}).json()
        assert set(heat) == set(Heat.model_validate(heat, strict=True).model_dump())
        assert heat == hit["heatmap"]
        if rank == "maxsim":  # where nothing is taken off for chance
            assert where_the_heatmap_says(hit, heat) >= 1
    return legs


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_what_words_gave_adds_up(question: str, rank: str, served: Server) -> None:
    legs = check(served, question, rank)
    expected = {"fusion": {"tokens", "windows"}, "maxsim": {"tokens"}, "fulltext": set()}[rank]
    assert expected <= legs


@pytest.mark.slow
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("question", ASKED)
def test_what_patches_gave_adds_up(question: str, rank: str, patches: Server) -> None:
    legs = check(patches, question, rank)
    assert ("patches" in legs) == (rank != "fulltext")


def test_any_page_has_its_account(served: Server) -> None:
    """Also those that no search gives, with the filters that a search may have."""
    client = served.client()
    question = QUESTIONS[0]
    documents = client.get("/v1/collections/samples/documents").json()["documents"]
    for document in documents:
        for page in range(1, document["pages"] + 1):
            path = f"/v1/collections/samples/documents/{document['id']}/pages/{page}/account"
            plain = client.get(path, params={"q": question}).json()
            adds_up(question, plain)
            only = client.get(
                path, params={"q": question, "document": document["document"], "tag": "kind=sample"}
            ).json()
            adds_up(question, only)
    asked = {"question": question, "k": 20, "documents": [documents[0]["document"]]}
    found = client.post("/v1/collections/samples/search", json=asked).json()["hits"]
    for hit in found:
        path = f"/v1/collections/samples/documents/{hit['id']}/pages/{hit['page']}/account"
        account = client.get(path, params={"q": question, "document": documents[0]["document"]}).json()
        assert account["score"] == pytest.approx(hit["score"], abs=EXACT)
