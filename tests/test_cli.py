"""The command line: its JSON, its exit codes, what it loads, and what ctrl-C leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pdfs import pdf_bytes, text, write
from PIL import Image

from visrag import Index
from visrag.cli import main
from visrag.encode.catalogue import KnownModel, known_models

REPORT = "harrowmere-annual-report.pdf"
QUESTION = "How many people can stand in a Kestrel tram?"
HIT = {"rank", "document", "page", "score", "snippet", "legs", "regions"}
LEG = {"leg", "encoder", "weight", "score", "token_scores"}
DOCUMENT = {"document", "state", "pages", "indexed", "failed", "tags"}
FAILURE = {"document", "page", "reason", "message"}
SUMMARY = {
    "documents",
    "pages",
    "unchanged",
    "removed",
    "seconds",
    "pages_per_s",
    "peak_memory_mb",
    "failures",
}
FIGURES = {"questions", "ndcg@5", "ndcg@10", "recall@1", "recall@5", "mrr", "latency_ms"}
QUICK = ("--ocr", "off", "--jobs", "1")


def visrag(*arguments: object) -> Result:
    """A command in this process. What click does not turn into an exit code is raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def parsed(*arguments: object, code: int = 0) -> Any:
    result = visrag(*arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def started(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A command as a process in a session of its own, as a terminal starts it."""
    command = [sys.executable, "-m", "visrag", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, text=True, start_new_session=True, **options)


@contextmanager
def interrupted(process: subprocess.Popen[str]) -> Iterator[None]:
    """Ctrl-C at the end of the block: SIGINT to the whole group, as a terminal sends it."""
    try:
        yield
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 90) -> None:
    """Wait; fail where the process ends before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.1)


def states(path: Path) -> dict[str, tuple[str, int]]:
    with Index(path) as index:
        return {document.name: (document.state, document.indexed) for document in index.documents()}


def pdf(path: Path, *pages: str) -> Path:
    return write(path, pdf_bytes([text(72, 700, page) for page in pages]))


@pytest.fixture(scope="module")
def template(samples_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index without documents, whose model is known and calibrated already. Not to be changed."""
    path = shutil.copytree(samples_path, tmp_path_factory.mktemp("template") / "index")
    with Index(path) as index:
        for document in index.documents():
            index.remove(document.name)
    return path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    """An index without documents."""
    return shutil.copytree(template, tmp_path / "index")


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A folder of a good document and two bad ones."""
    folder = tmp_path / "bad"
    folder.mkdir()
    pdf(folder / "good.pdf", "a walrus")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7 and nothing else")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n but no picture")
    return folder


# Models


def test_models_fit_into_80_columns() -> None:
    result = visrag("models")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert re.search(r"^vidore/colqwen2\.5-v0\.2 +\+ +128 +768 +60\.1 +52\.4 +MIT\*$", result.stdout, re.M)
    assert re.search(r"^colbert-ir/colbertv2\.0 +128 +69\.6 +MIT$", result.stdout, re.M)


def test_models_as_json_have_all_fields() -> None:
    rows = parsed("models")
    fields = {field.name for field in dataclasses.fields(KnownModel)}
    assert [row["id"] for row in rows] == [model.id for model in known_models()]
    assert all(set(row) == fields for row in rows)
    assert parsed("models", "colpali-v1.3") in rows


def test_one_model_is_told_in_full() -> None:
    told = visrag("models", "vidore/colqwen2.5-v0.2").stdout
    for fact in (
        "ColQwen2_5",
        "6f6fcdfd1a114dfe365f529701b33d66b9349014",
        "vidore/colqwen2.5-base",
        "54.02",
        "Qwen Research",
    ):
        assert fact in told
    assert "embeddings-benchmark/results at f4cc6c8" in told
    assert "None" not in told


def test_a_model_that_is_not_known() -> None:
    result = visrag("models", "walrus")
    assert result.exit_code == 2
    assert result.stderr == (
        "visrag: no model walrus is in the table of models (visrag models). Others may be used all the same\n"
    )


# JSON


@pytest.mark.parametrize("rank", ["fusion", "maxsim", "fulltext"])
def test_search_prints_what_the_issue_says(rank: str, samples_path: Path) -> None:
    answer = parsed("search", QUESTION, "--index", samples_path, "-k", "3", "--rank", rank)
    assert set(answer) == {"query", "took_ms", "hits"}
    assert answer["query"] == QUESTION
    assert answer["took_ms"] > 0
    hits = answer["hits"]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert (hits[0]["document"], hits[0]["page"]) == (REPORT, 6)
    for hit in hits:
        assert set(hit) == HIT
        assert sum(leg["weight"] * leg["score"] for leg in hit["legs"]) == pytest.approx(hit["score"], abs=1e-6)
        for leg in hit["legs"]:
            assert set(leg) == LEG
            assert sum(token["score"] for token in leg["token_scores"]) == pytest.approx(leg["score"], abs=1e-3)
            for token in leg["token_scores"]:
                assert set(token) == {"token", "score", "box"}
                assert token["box"] is None or len(token["box"]) == 4
        for region in hit["regions"]:
            assert set(region) == {"box", "score", "text"}
            assert all(0 <= edge <= 1 for edge in region["box"])


def test_search_keeps_to_documents_and_tags(samples_path: Path) -> None:
    def found(*options: str) -> set[str]:
        hits = parsed("search", "depot", "--index", samples_path, "-k", "30", *options)["hits"]
        return {hit["document"] for hit in hits}

    assert found("--document", REPORT, "--document", "depot-letter-scan.pdf") == {REPORT, "depot-letter-scan.pdf"}
    assert len(found("--tag", "kind=sample")) == 6
    assert found("--tag", "kind=other") == set()


def test_ingest_documents_failures_retry_and_remove(path: Path, bad: Path) -> None:
    index = ("--index", path)
    summary = parsed("ingest", bad, *index, *QUICK, "--tag", "kind=a=b", code=1)
    assert set(summary) == SUMMARY
    assert (summary["documents"], summary["pages"], summary["unchanged"], summary["removed"]) == (3, 1, 0, 0)
    assert 50 < summary["peak_memory_mb"] < 20_000
    failed = [("broken.pdf", None, "corrupt"), ("picture.png", None, "corrupt")]
    rows = parsed("failures", *index)
    for found in (summary["failures"], rows):
        assert all(set(row) == FAILURE for row in found)
        assert sorted((row["document"], row["page"], row["reason"]) for row in found) == failed

    documents = parsed("documents", *index)
    assert all(set(row) == DOCUMENT for row in documents)
    assert [tuple(row.values()) for row in documents] == [
        ("broken.pdf", "failed", 0, 0, 0, {"kind": "a=b"}),
        ("good.pdf", "indexed", 1, 1, 0, {"kind": "a=b"}),
        ("picture.png", "failed", 0, 0, 0, {"kind": "a=b"}),
    ]

    again = parsed("ingest", bad, *index, *QUICK)
    assert (again["documents"], again["unchanged"]) == (0, 3)
    pdf(bad / "broken.pdf", "an otter")
    summary = parsed("retry", *index, *QUICK, code=1)
    assert set(summary) == SUMMARY
    assert (summary["documents"], summary["pages"], len(summary["failures"])) == (2, 1, 1)
    assert parsed("remove", "picture.png", "good.pdf", *index) == {"removed": ["picture.png", "good.pdf"]}
    assert parsed("failures", *index) == []
    (document,) = parsed("documents", *index)
    assert (document["document"], document["state"]) == ("broken.pdf", "indexed")
    assert parsed("retry", *index, *QUICK)["documents"] == 0


def test_sync_removes_what_has_gone(path: Path, bad: Path) -> None:
    visrag("ingest", bad, "--index", path, *QUICK)
    (bad / "broken.pdf").unlink()
    (bad / "picture.png").unlink()
    summary = parsed("ingest", bad, "--index", path, *QUICK, "--sync")
    assert (summary["removed"], summary["unchanged"]) == (2, 1)
    assert set(states(path)) == {"good.pdf"}


def test_names_that_are_not_unicode_and_questions_that_are_not(path: Path, tmp_path: Path) -> None:
    """As bytes of another encoding reach Python: as lone surrogates."""
    folder = tmp_path / "in"
    folder.mkdir()
    try:
        pdf(folder / "caf\udce9\n.pdf", "a walrus")
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert parsed("ingest", folder, "--index", path, *QUICK)["documents"] == 1
    assert parsed("ingest", folder, "--index", path, *QUICK)["unchanged"] == 1
    (hit,) = parsed("search", "walrus \udcff", "--index", path)["hits"]
    assert hit["document"] == "caf?\n.pdf"
    assert visrag("remove", hit["document"], "--index", path).exit_code == 0


def test_a_folder_that_holds_the_index_and_a_pipe(path: Path, tmp_path: Path) -> None:
    (path / "images" / "page.png").write_bytes(b"as of an encrypted document")
    pdf(tmp_path / "a.pdf", "a walrus")
    os.mkfifo(tmp_path / "pipe.pdf")  # to read it would take for ever
    assert parsed("ingest", tmp_path, "--index", path, *QUICK)["failures"] == []
    assert states(path) == {"a.pdf": ("indexed", 1)}


def test_sync_keeps_what_is_there_though_a_walk_would_not_take_it(path: Path, bad: Path) -> None:
    (bad / "notes").write_text("a seal")
    (bad / "broken.pdf").unlink()
    (bad / "picture.png").unlink()
    assert parsed("ingest", bad / "notes", "--index", path, *QUICK)["pages"] == 1
    assert parsed("ingest", bad, "--index", path, *QUICK, "--sync")["removed"] == 0
    assert set(states(path)) == {"good.pdf", "notes"}
    (bad / "notes").unlink()
    assert parsed("ingest", bad, "--index", path, *QUICK, "--sync")["removed"] == 1


def test_highlight_writes_the_page_and_tells_its_regions(samples_path: Path, tmp_path: Path) -> None:
    where = ("--index", samples_path, "--document", REPORT, "--page", "6")
    output = tmp_path / "new" / "folder" / "out.png"
    found = parsed("highlight", QUESTION, *where, "-o", output)
    assert set(found) == {"image", "regions"}
    assert found["image"] == str(output)
    assert "Kestrel" in " ".join(region["text"] for region in found["regions"])
    assert all(set(region) == {"box", "score", "text"} for region in found["regions"])
    with Image.open(output) as picture:
        assert (picture.format, picture.height) == ("PNG", 1600)
    whole = output.read_bytes()
    parsed("highlight", QUESTION, *where, "-o", output, "--token", "stand")
    assert output.read_bytes() != whole
    printed = visrag("highlight", QUESTION, *where, "-o", output)
    assert printed.stdout.splitlines()[0] == str(output)


def test_evaluate_gives_the_figures_of_the_issue(samples_path: Path, samples: Path) -> None:
    report = parsed("evaluate", samples / "questions.jsonl", "--index", samples_path)
    assert set(report) == FIGURES | {"by_type", "by_scope", "highlighting"}
    assert [row["regions"] for row in report["highlighting"]["curve"]] == [1, 2, 3, 5]
    assert set(report["latency_ms"]) == {"p50", "p95"}
    assert report["questions"] == 25
    assert set(report["by_scope"]) == {"document", "corpus"}
    assert sum(row["questions"] for row in report["by_type"].values()) == 25
    assert set(report["by_type"]) == {"chart", "figure", "table", "text"}
    for row in [*report["by_type"].values(), *report["by_scope"].values()]:
        assert set(row) == FIGURES
    for name in FIGURES - {"questions", "latency_ms"}:
        assert report[name] == report["by_scope"]["document"][name]
    assert report["by_scope"]["corpus"]["recall@5"] > 0.85


def test_evaluate_of_a_beir_folder_reuses_its_index(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    folder.mkdir()
    animals = ("walrus on the ice", "heron in the reeds", "otter in the river", "beaver at the dam", "owl in the barn")
    passages = [{"_id": f"p{i}", "title": "", "text": animal} for i, animal in enumerate(animals)]
    queries = [{"_id": "q0", "text": "walrus"}, {"_id": "q1", "text": "Where is the beaver?"}]
    for name, rows in (("corpus", passages), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq0\tp0\t1\nq1\tp3\t1\n", encoding="utf-8")
    report = parsed("evaluate", "--beir", folder, "--index", path)
    assert set(report) >= FIGURES
    assert (report["questions"], report["recall@1"], report["ndcg@10"], report["mrr"]) == (2, 1.0, 1.0, 1.0)
    assert set(report["by_scope"]) == {"corpus"}

    def vectors() -> dict[str, int]:
        return {file.name: file.stat().st_size for file in (path / "vectors").iterdir() if file.stat().st_size}

    made = vectors()
    assert parsed("evaluate", "--beir", folder, "--index", path, "--rank", "maxsim")["recall@1"] == 1.0
    assert vectors() == made


# What people read


def test_failures_are_a_table_with_exit_code_1(path: Path, bad: Path) -> None:
    result = visrag("ingest", bad, "--index", path, *QUICK)
    assert result.exit_code == 1
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["document", "page", "reason", "message"]
    assert [row.split()[:2] for row in rows] == [["broken.pdf", "corrupt"], ["picture.png", "corrupt"]]
    assert "3 documents ingested, 1 page in" in result.stderr
    listed = visrag("failures", "--index", path)
    assert (listed.exit_code, listed.stdout.splitlines()[0].split()) == (0, head.split())


def test_info_tells_what_an_index_holds_and_takes(samples_path: Path) -> None:
    found = json.loads(visrag("info", "--index", samples_path, "--json").stdout)
    tokens, windows = found["legs"]
    assert (found["documents"], found["pages"]) == (6, 20)
    assert (tokens["leg"], tokens["pages"], tokens["dim"], windows["leg"]) == ("tokens", 20, 384, "windows")
    assert tokens["codes"] == 384 * tokens["vectors"]
    assert 48 <= tokens["bits"] / tokens["vectors"] < 49.5  # 384 bits, filled up to 8 vectors a page
    sizes = {name: sum(path.stat().st_size for path in (samples_path / name).iterdir()) for name in ("vectors",)}
    assert found["bytes"] | sizes == found["bytes"]
    assert found["in_memory_per_page"] == round((tokens["bits"] + windows["bits"]) / 20)
    lines = visrag("info", "--index", samples_path).stdout.splitlines()
    assert lines[0] == f"{samples_path}: 6 documents, 20 pages"
    assert lines[-1] == f"MaxSim: {found['kernel']}, {found['threads']} threads"


def test_compact_gives_bytes_back(path: Path, tmp_path: Path) -> None:
    for name in ("a.pdf", "b.pdf"):
        visrag("ingest", pdf(tmp_path / name, *["a walrus and a heron " * 30] * 3), "--index", path, *QUICK)
    visrag("remove", "a.pdf", "--index", path)
    before = json.loads(visrag("info", "--index", path, "--json").stdout)["bytes"]["vectors"]
    returned = json.loads(visrag("compact", "--index", path, "--json").stdout)["bytes"]
    after = json.loads(visrag("info", "--index", path, "--json").stdout)["bytes"]["vectors"]
    assert returned >= before - after > before / 3
    assert visrag("compact", "--index", path).stdout == "0 B given back\n"


def test_hits_are_printed_best_first(samples_path: Path) -> None:
    result = visrag("search", QUESTION, "--index", samples_path, "-k", "2", "--timings")
    assert result.exit_code == 0
    first = result.stdout.splitlines()[0].split()
    assert first[0] == "1"
    assert first[2:] == [f"{REPORT},", "page", "6"]
    assert "encode" in result.stderr
    nothing = visrag("search", "walrus", "--index", samples_path, "--rank", "fulltext")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "nothing found\n")


def test_evaluate_prints_a_table(samples_path: Path, samples: Path) -> None:
    result = visrag("evaluate", samples / "questions.jsonl", "--index", samples_path, "--rank", "fulltext")
    assert result.exit_code == 0
    head, total, *rows = result.stdout.splitlines()
    assert "ndcg@5" in head
    assert total.split()[:2] == ["all", "25"]
    assert len(rows) == 2 + 4 + 2 + 1 + 4  # scopes, types; a title after an empty line, a head, numbers of regions
    assert "highlighting" in rows[7]


# Wrong usage


USAGE = {
    "index that is not there": ("search", "x", "--index", "{tmp}/missing"),
    "documents of no index": ("documents", "--index", "{tmp}/missing"),
    "index that is a file": ("documents", "--index", "{tmp}/file"),
    "folder that is no index": ("documents", "--index", "{tmp}"),
    "document": ("search", "x", "--index", "{samples}", "--document", "nothing.pdf"),
    "document to remove": ("remove", "nothing.pdf", "--index", "{samples}"),
    "document to highlight": (
        *("highlight", "x", "--index", "{samples}", "--document", "nothing.pdf"),
        *("--page", "1", "-o", "{tmp}/out.png"),
    ),
    "page": ("highlight", "x", "--index", "{samples}", "--document", REPORT, "--page", "99", "-o", "{tmp}/out.png"),
    "token": (
        *("highlight", "x", "--index", "{samples}", "--document", REPORT),
        *("--page", "1", "--token", "walrus", "-o", "{tmp}/out.png"),
    ),
    "tag": ("search", "x", "--index", "{samples}", "--tag", "kind"),
    "tag without a key": ("search", "x", "--index", "{samples}", "--tag", "=a"),
    "empty question": ("search", "", "--index", "{samples}"),
    "device": ("ingest", "{tmp}/file", "--index", "{empty}", "--device", "nosuch"),
    "file without an end": ("ingest", "/dev/zero", "--index", "{empty}"),
    "question to highlight": (
        *("highlight", " ", "--index", "{samples}", "--document", REPORT),
        *("--page", "1", "-o", "{tmp}/out.png"),
    ),
    "path": ("ingest", "{tmp}/missing.pdf", "--index", "{tmp}/new"),
    "text model": ("ingest", "{tmp}/file", "--index", "{tmp}/new", "--text", "no/such-model"),
    "vision model": ("ingest", "{tmp}/file", "--index", "{empty}", "--vision", "{tmp}"),
    "output": (
        *("highlight", "x", "--index", "{samples}", "--document", REPORT),
        *("--page", "1", "-o", "{tmp}/file/out.png"),
    ),
    "output in no place": (
        *("highlight", "x", "--index", "{samples}", "--document", REPORT),
        *("--page", "1", "-o", "/proc/visrag/out.png"),
    ),
    "questions that are no questions": ("evaluate", "{tmp}/file", "--index", "{samples}"),
    "neither questions nor a folder": ("evaluate", "--index", "{samples}"),
    "folder that is not of BEIR": ("evaluate", "--beir", "{tmp}", "--index", "{empty}"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_one_line_and_exit_code_2(case: str, samples_path: Path, path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x\n")
    before = sorted(tmp_path.iterdir())
    result = visrag(*(part.format(tmp=tmp_path, samples=samples_path, empty=path) for part in USAGE[case]))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("visrag: ")
    assert len(line) > 25
    assert [file for file in sorted(tmp_path.iterdir()) if file.suffix == ".png"] == []
    if "new" not in case and case != "text model":
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("search",),
        ("search", "x", "-k", "0"),
        ("search", "x", "--rank", "best"),
        ("ingest",),
        ("ingest", "x", "--jobs", "0"),
        ("ingest", "x", "--page-timeout", "0"),
        ("ingest", "x", "--page-timeout", "1e300"),
        ("highlight", "x", "--document", "a", "--page", "0", "-o", "a.png"),
        ("watch", "no-such-folder"),
        ("evaluate", "no-such-file"),
        ("nonsense",),
    ],
)
def test_wrong_arguments_are_exit_code_2(arguments: tuple[str, ...]) -> None:
    result = visrag(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


# What is loaded


HEAVY = ("torch", "transformers", "sentence_transformers", "numpy", "PIL", "onnxruntime", "rich")


def loaded(code: str) -> set[str]:
    """Which heavy modules a fresh process has after some code."""
    code += f"\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules), sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


def command(*arguments: object) -> str:
    return f"from visrag.cli import main\nmain({[str(argument) for argument in arguments]}, standalone_mode=False)"


def test_help_loads_nothing_heavy() -> None:
    assert loaded(command("--help")) == set()
    assert loaded(command("ingest", "--help")) == set()


def test_the_package_loads_no_torch() -> None:
    assert not {"torch", "transformers", "sentence_transformers"} & loaded("import visrag\nvisrag.Index, visrag.Hit")


@pytest.mark.parametrize("rank", ["fusion", "fulltext"])
def test_a_cold_search_loads_no_torch(rank: str, samples_path: Path) -> None:
    found = loaded(command("search", QUESTION, "--index", samples_path, "--rank", rank))
    assert "numpy" in found
    assert not {"torch", "transformers", "sentence_transformers"} & found


def seconds_of_cpu(*arguments: object) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "visrag", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_help_and_a_cold_search_are_quick(samples_path: Path) -> None:
    """By processor time, which a busy machine stretches less than the clock's."""
    assert seconds_of_cpu("--help") < 0.3
    assert seconds_of_cpu("search", QUESTION, "--index", samples_path) < 4


# Processes


@pytest.mark.slow
def test_watch_takes_whole_files_until_ctrl_c(path: Path, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    pdf(inbox / "first.pdf", "a walrus")
    whole = pdf_bytes([text(72, 700, f"page {number}") for number in range(1, 31)])
    log = tmp_path / "log"
    with log.open("w") as told:
        process = started("watch", inbox, "--index", path, *QUICK, stderr=told)
    with interrupted(process):
        until(lambda: states(path).get("first.pdf") == ("indexed", 1), process)
        step = len(whole) // 8
        with (inbox / "growing.pdf").open("wb") as file:
            for start in range(0, len(whole), step):
                file.write(whole[start : start + step])
                file.flush()
                assert "growing.pdf" not in states(path)
                time.sleep(0.3)
        until(lambda: " 30 pages in" in log.read_text(), process)
    output, _ = process.communicate()
    errors = log.read_text()
    assert process.returncode in (0, 130)
    assert output == ""  # no table of failures
    assert "Traceback" not in errors
    assert errors.count(" 30 pages in") == 1  # once, and whole
    assert states(path) == {"first.pdf": ("indexed", 1), "growing.pdf": ("indexed", 30)}
    assert parsed("search", "walrus", "--index", path, "--rank", "fulltext")["hits"]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pdf(folder / "0.pdf", "a walrus")
    line = "otters and herons live by the river and eat fish and frogs all day long "
    page = "".join(text(40, 800 - 12 * number, line, 10) for number in range(20))
    for number in range(1, 10):
        write(folder / f"{number}.pdf", pdf_bytes([page] * 8))
    process = started("ingest", folder, "--index", path, *QUICK)
    with interrupted(process):
        until(lambda: states(path).get("0.pdf") == ("indexed", 1), process)
    output, errors = process.communicate()
    assert process.returncode in (130, -signal.SIGINT)
    assert output == ""
    assert "Traceback" not in errors
    (told,) = [line for line in errors.splitlines() if line.strip()]
    assert told.startswith("stopped: the documents that were done are in the index")
    kept = states(path)
    assert kept["0.pdf"] == ("indexed", 1)
    assert len(kept) < 10
    assert {state for state, _ in kept.values()} == {"indexed"}
    assert parsed("search", "walrus", "--index", path, "--rank", "fulltext")["hits"]
    for number in range(2, 10):
        (folder / f"{number}.pdf").unlink()
    summary = parsed("ingest", folder, "--index", path, *QUICK)
    assert summary["unchanged"] >= 1
    assert states(path)["1.pdf"] == ("indexed", 8)
