"""Every example in README.md is run, in its order, in one folder."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.M | re.S)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_examples(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    ran = 0
    for kind, text in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        commands = [[sys.executable, "-c", text]]
        if kind == "console":
            lines = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
            commands = [[sys.executable, "-m", "visrag", *shlex.split(line)[1:]] for line in lines]
        for command in commands:
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            ran += 1
    assert ran > 10
    assert (tmp_path / "kestrel.png").stat().st_size > 10_000


def test_every_command_is_in_the_readme() -> None:
    from visrag.cli import main

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in main.commands:
        assert f"visrag {name}" in readme, name
