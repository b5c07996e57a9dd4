"""Passwords open documents, and are seen nowhere."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
from pathlib import Path

import pypdfium2
import pytest
from click.testing import CliRunner
from pdfs import pdf_bytes, text, write

from visrag import UsageError
from visrag.cli import main
from visrag.records import Page
from visrag.render import Renderer, RenderOptions
from visrag.settings import IngestSettings, QueueSettings, read_passwords

RIGHT, WRONG = "s3same-0pen", "n0t-this-0ne"


def locked(path: Path, password: str = RIGHT) -> Path:
    """A PDF that asks for a password, in AES-256, made by pikepdf's qpdf."""
    pikepdf = pytest.importorskip("pikepdf")
    with pikepdf.open(
        io.BytesIO(pdf_bytes([text(72, 700, "a secret walrus"), text(72, 700, "its tusks")]))
    ) as document:
        document.save(path, encryption=pikepdf.Encryption(user=password, owner=password))
    return path


def listening(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which poppler's programs write their arguments from now on, before they do as ever."""
    told = folder / "told"
    folder.mkdir()
    for name in ("pdfinfo", "pdftotext", "pdftoppm"):
        real = shutil.which(name)
        if real is None:
            pytest.skip("poppler-utils is not installed")
        script = f'#!/bin/sh\necho "{name} $@" >> "{told}"\nexec {real} "$@"\n'
        write(folder / name, script.encode()).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return told


@pytest.mark.slow
def test_no_password_is_seen_anywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = listening(tmp_path / "bin", monkeypatch)
    caplog.set_level(logging.DEBUG)
    index = tmp_path / "index"
    file = locked(tmp_path / "locked.pdf")
    passwords = write(tmp_path / "passwords", f"\n{WRONG}\r\n{RIGHT}\n".encode())
    common = ["ingest", str(file), "--index", str(index), "--ocr", "off", "--json"]
    refused = CliRunner().invoke(main, [*common, "--password", WRONG])
    assert refused.exit_code == 1
    assert json.loads(refused.stdout)["failures"][0]["reason"] == "password"
    opened = CliRunner().invoke(main, [*common, "--renderer", "poppler", "--password-file", str(passwords)])
    assert opened.exit_code == 0, opened.output
    assert json.loads(opened.stdout)["pages"] == 2
    listed = CliRunner().invoke(main, ["documents", "--index", str(index), "--json"])
    assert json.loads(listed.stdout)[0]["state"] == "indexed"
    assert {line.split()[0] for line in arguments.read_text().splitlines()} == {"pdfinfo", "pdftotext", "pdftoppm"}
    told = [refused.output, opened.output, listed.output, caplog.text, arguments.read_text()]
    kept = [kept.read_bytes() for kept in index.rglob("*") if kept.is_file()]
    for password in (RIGHT, WRONG):
        assert not any(password in text for text in told)
        assert not any(password.encode() in data for data in kept)


@pytest.mark.parametrize("password", ["tide", "æøå", "Sª\xadSL 密"])
def test_poppler_reads_a_locked_document_without_its_password(tmp_path: Path, password: str) -> None:
    if shutil.which("pdftoppm") is None:
        pytest.skip("poppler-utils is not installed")
    path = locked(tmp_path / "a.pdf", password)
    before = set(tmp_path.iterdir())
    with Renderer() as renderer:
        options = RenderOptions(renderer="poppler", ocr="off", passwords=("x", password), image_side=200)
        opened = renderer.pages(path, "a", options)
        first, second = opened
    assert opened.locked
    assert isinstance(first, Page)
    assert isinstance(second, Page)
    assert (first.text, second.text) == ("a secret walrus", "its tusks")
    assert first.image is not None
    assert set(tmp_path.iterdir()) == before


def test_a_password_may_be_given_as_its_author_typed_it(tmp_path: Path) -> None:
    """AES-256 takes passwords as SASLprep has them: this one's soft hyphen goes, its ª becomes an a."""
    path = locked(tmp_path / "a.pdf", "SaSLprep")
    with pytest.raises(pypdfium2.PdfiumError):
        pypdfium2.PdfDocument(path, password="SªSL\xadprep")
    with Renderer() as renderer:
        assert renderer.pages(path, "a", RenderOptions(ocr="off", passwords=("SªSL\xadprep",))).pages == 2


def test_a_file_of_passwords(tmp_path: Path) -> None:
    file = write(tmp_path / "passwords", "\ufefftide\n\n two words \r\næøå".encode())
    assert read_passwords(file) == ("tide", " two words ", "æøå")
    with pytest.raises(UsageError, match="is not UTF-8") as caught:
        read_passwords(write(file, b"t\xefde"))
    assert "t" + "ï" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_passwords(tmp_path)


def test_a_password_that_is_no_utf_8_is_refused_and_not_told(tmp_path: Path) -> None:
    password = os.fsdecode(b"S3cre\xe9tXY")  # as a program gets it of its command line and environment
    with pytest.raises(UsageError, match="a password is not UTF-8") as caught:
        IngestSettings(passwords=("tide", password))
    assert "S3cre" not in str(caught.value)
    with pytest.raises(UsageError, match="a password is not UTF-8"):
        QueueSettings.from_environment({"VISRAG_PASSWORDS": password})
    file = write(tmp_path / "a.pdf", pdf_bytes([text(72, 700, "walrus")]))
    done = CliRunner().invoke(main, ["ingest", str(file), "--index", str(tmp_path / "index"), "--password", password])
    assert done.exit_code != 0
    assert "a password is not UTF-8" in done.output
    assert "S3cre" not in done.output
    assert not (tmp_path / "index").exists()
