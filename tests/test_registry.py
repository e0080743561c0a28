"""From texts to objects and back."""

from __future__ import annotations

import pytest

from asgrad import times, work
from asgrad.errors import AsgradError
from asgrad.registry import build, label
from asgrad.times import Fixed, FromRun
from asgrad.work import LocalSteps


@pytest.mark.parametrize(
    "path",
    ["runs/profile", "a,b=c:d", "poisson:x", "run=5", "5", "true", "1/2", 'a "q" b', "it's", " x",
     '"x"', "a\\b", "fixed", "new\nline", "-1", 'a"b,c"d', "run=x,y", "größe", "~/x", '"', ","],
)  # fmt: skip
def test_any_path_survives_its_label(path):
    """Commas and quotes too; and names of classes, or numbers, are paths where a text is wanted."""
    assert build("worker times", times, label(FromRun(path))) == FromRun(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("from-run:runs/a b", "runs/a b"),
        ("from-run:a:b", "a:b"),
        ("from-run:5", "5"),
        ('from-run:"a=1,b=2"', "a=1,b=2"),
        ('from-run: run = "a,b" ', "a,b"),
        ('from-run:"a', '"a'),
    ],
)
def test_paths_as_a_person_writes_them(text, path):
    """Without quotes wherever nothing else could be meant."""
    assert build("worker times", times, text) == FromRun(path)


def test_a_path_with_commas_needs_quotes(refused):
    assert "write parameters as name=value, got 'b'" in refused(
        lambda: build("worker times", times, "from-run:a,b"), AsgradError
    )


@pytest.mark.parametrize("n", [(3,), (3, 1), (1, 2, 3), 7])
def test_counts_a_worker_survive_their_label(n):
    """They stay integers, and a list of one is no number."""
    part = LocalSteps(n, 0.5)
    assert build("work", work, label(part)) == part
    scale = Fixed(scale=n)
    assert build("worker times", times, label(scale)) == scale


def test_a_list_that_is_none_is_a_text(refused):
    for said in ("3//", "/3", "3/4/"):
        text = refused(lambda s=said: build("work", work, f"local-steps:n={s}"), AsgradError)
        assert f"n must be an integer, or one a worker, got {said!r}" in text
    assert "got []." in refused(lambda: LocalSteps([]))
