"""The OpenAPI document against a real server, by schemathesis: no 500, nothing undocumented, nothing wrong accepted.

Left out: event streams, which do not end. Of the checks: ``positive_data_acceptance``, as a request that fits the
schema can still ask for what is not there, or for a question without a word; ``allow_header_conformance``, as a route's
Allow names its own methods, not those of others at the same path; ``ignored_auth``, ``object_level_authorization``: the
server here has no keys (see test_access_rules.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server, serving

from visrag.ids import document_id

pytestmark = pytest.mark.slow

REPORT = "harrowmere-annual-report.pdf"
LEFT_OUT = "positive_data_acceptance,allow_header_conformance,ignored_auth,object_level_authorization"

# A document that is there, but where it is to be removed: what a request names is else found by nobody.
CONFIG = """
[parameters]
collection = "samples"
id = "{id}"
page = 1

[[operations]]
include-method = ["DELETE"]
parameters = {{ collection = "drop", id = "{id}" }}
"""


@pytest.fixture(scope="module")
def server(samples_path: Path, empty_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("openapi")
    collections = {"samples": folder / "samples", "drop": folder / "drop"}
    for path in collections.values():
        shutil.copytree(samples_path, path)
    with serving(folder, collections, limits={"rate": 1e6, "burst": 10**6}) as server:
        yield server


def run(server: Server, folder: Path, config: str, *options: str) -> str:
    """The report of schemathesis, which finds nothing."""
    (folder / "schemathesis.toml").write_text(config)
    command = [Path(sys.executable).with_name("schemathesis"), "run", f"{server.url}/v1/openapi.json"]
    command += [
        "--exclude-path-regex",
        "events$",
        "--exclude-checks",
        LEFT_OUT,
        "--seed",
        "1",
        "--generation-deterministic",
    ]
    command += [
        "--continue-on-failure",
        "--no-shrink",
        "--request-timeout",
        "20",
        "--output-truncate",
        "true",
        *options,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    report = "\n".join(line[:500] for line in done.stdout.splitlines())
    assert done.returncode == 0, report + done.stderr
    assert "Traceback" not in server.log
    return report


@pytest.mark.timeout(300)
def test_every_answer_is_as_it_is_documented(server: Server, tmp_path: Path) -> None:
    config = CONFIG.format(id=document_id(REPORT))
    report = run(server, tmp_path, config, "--phases", "coverage,fuzzing", "-n", "8")
    assert "28 selected / 30 total" in " ".join(report.split())


@pytest.mark.timeout(300)
def test_no_path_leads_to_a_fault(server: Server, tmp_path: Path) -> None:
    run(server, tmp_path, "", "--phases", "fuzzing", "-n", "10")
