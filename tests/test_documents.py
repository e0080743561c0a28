"""The code in the README and the docs runs, and what they name exists."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import typer

import asgrad as ag
from asgrad.cli import main
from asgrad.cli.app import app
from asgrad.registry import catalogue

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
_CODE = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [name for name in DOCUMENTS if _CODE.search((ROOT / name).read_text("utf-8"))]


def _commands(block: str) -> list[str]:
    """Return the commands of a block for the shell, each on one line."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.mark.parametrize("document", WITH_CODE)
def test_code_of_a_document_runs_from_its_beginning_to_its_end(
    document, tmp_path, monkeypatch, capsys
):
    """As somebody would who starts in an empty folder; all of it prints something.

    Not run is what is no command of asgrad, and a command whose comment says what it needs:
    "# needs a cluster".
    """
    monkeypatch.chdir(tmp_path)
    for kind, block in _CODE.findall((ROOT / document).read_text("utf-8")):
        if kind == "python":
            code = compile(block, document, "exec", dont_inherit=True)  # no annotations as text
            exec(code, {"__name__": "example"})
            assert capsys.readouterr().out
            continue
        for line in _commands(block):
            words = shlex.split(line, comments=True)
            if words[0] != "asgrad" or re.search("# needs ", line):
                continue
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                main()
            printed = capsys.readouterr()
            assert not ended.value.code, (line, printed.err)
            assert printed.out


def test_other_commands_of_documents_exist():
    """Those of make are in the Makefile; what is left is known."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for document in WITH_CODE:
        for kind, block in _CODE.findall((ROOT / document).read_text("utf-8")):
            for line in _commands(block) if kind == "sh" else []:
                program, target = line.split()[:2]
                if program == "make":
                    assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
                else:
                    assert program in ("asgrad", "ray", "chmod", "export"), line


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


def test_links_lead_somewhere():
    """Relative links and pictures of the documents exist."""
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text()):
            assert (folder / target).exists(), (document, target)


def test_the_readmes_table_is_that_of_the_methods_and_parts_there_are():
    """If not, `make readme` writes it anew."""
    made = runpy.run_path(str(ROOT / ".ci/readme.py"))
    text = (ROOT / "README.md").read_text("utf-8")
    assert made["renewed"](text) == text
    for name in catalogue(ag.methods):
        assert f"| `{name}` |" in text


def test_architecture_names_every_room():
    """docs/architecture.md has a row for every package and module at the top."""
    text = (ROOT / "docs/architecture.md").read_text()
    for path in (ROOT / "src/asgrad").iterdir():
        if path.is_dir() and (path / "__init__.py").exists():
            assert f"`{path.name}/`" in text, path.name
        elif path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.name}`" in text, path.name
