"""The shape of the package: what imports what, what is public, what is loaded when."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import visrag

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "visrag"


def tree() -> list[str]:
    """The modules of visrag/ in the order of README.md's tree, as paths under visrag/."""
    found, folders = [], [""]
    lines = (ROOT / "README.md").read_text(encoding="utf-8").split("    visrag/\n")[1].split("    workers/\n")[0]
    for line in lines.splitlines():
        depth = (len(line) - len(line.lstrip()) - 6) // 2
        name = line.split()[0]
        folders = [*folders[: depth + 1], name]
        if name.endswith(".py"):
            found.append("".join(folders[1:]))
    return found


def imports(module: str) -> set[str]:
    """The modules of visrag/ that a module imports, anywhere in it."""
    package = Path(module).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = PACKAGE.joinpath(*package[: len(package) - node.level + 1], *(node.module or "").split("."))
        for name in [None, *(alias.name for alias in node.names)]:
            path = base if name is None else base / name
            for file in (path.with_suffix(".py"), path / "__init__.py"):
                if file.is_file():
                    found.add(file.relative_to(PACKAGE).as_posix())
    return found - {"__init__.py"}


def test_the_tree_in_the_readme_is_true() -> None:
    assert sorted(tree()) == sorted(
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"
    )


@pytest.mark.parametrize("module", tree())
def test_imports_point_upwards(module: str) -> None:
    order = tree()
    assert {found for found in imports(module) if order.index(found) >= order.index(module)} == set()


def test_public_names() -> None:
    assert sorted(visrag.__all__) == visrag.__all__
    for name in visrag.__all__:
        assert getattr(visrag, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'index_of'"):
        visrag.index_of  # noqa: B018


@pytest.mark.parametrize(
    "module",
    ["visrag", "visrag.cli", "visrag.index", "visrag.ingest", "visrag.store.local", "visrag.encode.catalogue"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    heavy = "{'torch', 'transformers', 'sentence_transformers', 'pypdfium2', 'rapidocr', 'PIL'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_path_of_a_machine_is_in_the_files() -> None:
    done = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False)
    for name in done.stdout.split():
        if name.endswith((".py", ".md", ".toml", ".yml")) or name == "Makefile":
            text = (ROOT / name).read_text(encoding="utf-8")
            assert not re.search(r"/(work|home|root)/\w", text), name
