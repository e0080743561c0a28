"""The code in the README and the docs runs, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

import asgrad as ag
from asgrad.cli.app import app
from asgrad.registry import catalogue

ROOT = Path(__file__).parents[1]
WITH_CODE = ["README.md", "docs/methods.md", "docs/training.md", "docs/cluster.md"]
DOCUMENTS = [*WITH_CODE, "docs/stragglers.md", "docs/architecture.md"]


def _blocks(document: str) -> list[str]:
    """Return the Python blocks of a document."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("document", WITH_CODE)
def test_python_blocks_run(document, tmp_path, monkeypatch, capsys):
    """Every Python block runs from an empty folder and prints something."""
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(document)
    assert blocks
    for block in blocks:
        exec(compile(block, document, "exec"), {"__name__": "example"})
        assert capsys.readouterr().out


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_documents_have_the_options_they_show(document):
    """Every `asgrad` command of a document exists and knows its options."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL) + re.findall(r"`(asgrad [^`]*)`", text)
    commands = [
        line.split("#")[0].split()
        for block in blocks
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("asgrad ")
    ]
    commands_of = typer.main.get_command(app)
    for _, name, *words in commands:
        known = {option for p in commands_of.commands[name].params for option in p.opts}
        assert {word for word in words if word.startswith("--")} <= known, (name, words)
    assert commands or document not in WITH_CODE


def test_links_lead_somewhere():
    """Relative links and pictures of the documents exist."""
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert (folder / target).exists(), (document, target)


def test_readme_names_every_method():
    """The README's table of methods is complete."""
    text = (ROOT / "README.md").read_text()
    for name in [*catalogue(ag.methods), "koloskova", "mishchenko"]:
        assert name in text


def test_architecture_names_every_room():
    """docs/architecture.md has a row for every package and module at the top."""
    text = (ROOT / "docs/architecture.md").read_text()
    for path in (ROOT / "src/asgrad").iterdir():
        if path.is_dir() and (path / "__init__.py").exists():
            assert f"`{path.name}/`" in text, path.name
        elif path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.name}`" in text, path.name
