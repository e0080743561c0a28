"""Whatever a configuration says, the command line runs it or refuses it in one line."""

from __future__ import annotations

import random
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest

import asgrad.report
from asgrad.cli import process

COMPARE = {
    "data": '"rows.svm"', "split": '"shared"', "problem": '"logistic"', "workers": "2",
    "batch": "2", "times": '"linear"', "methods": '["pure", "sync"]', "stepsizes": "[0.1]",
    "widen": "0", "seeds": "1", "steps": "6", "evaluations": "4", "x0": '"zeros"',
    "regularizer": '"l2"', "strength": "0.1", "window": "0.5", "best": '"loss"', "test": "0.2",
}  # fmt: skip
TRAIN = {
    "data": '"rows.svm"', "split": '"shuffled"', "problem": '"logistic"', "workers": "2",
    "batch": "2", "method": '"pure"', "stepsize": "0.1", "steps": "20", "seed": "1",
    "evaluate_every": "0.05", "slowdown": "[1.0, 1.0]", "restarts": "1", "until_time": "0.3",
}  # fmt: skip
MORE = [
    "alpha",
    "equal",
    "target",
    "out",
    "dim",
    "noise",
    "device",
    "gradient_norm",
    "sleep",
    "cpus",
]
TEXTS = [
    *("", "x", "~", "~/rows.svm", "~nobody/x.svm", "a=b.svm", "sp ace.svm", "ü.svm", "noext"),
    *("folder.svm", "loop.svm", "empty.svm", "/nowhere/x.svm", "../x.svm", "a\nb", "\0", "\u202e"),
    *("from-table:times.csv", "from-table:path=times.csv", "from-run:x", "linear ", "z" * 5000),
    *("fixed:scale=-1", "fixed:scale=1e308", "fixed:scale=0", "stragglers:share=2", "exponential"),
    *("label", "dirichlet", "auto", "softmax", "least-squares", "tridiagonal", "nonconvex"),
    *("x0.npy", "flat.npy", "object.npy", "ones", "normal", "accuracy", "time_to_target", "digits"),
    *("pure+mishchenko", "ringleader", "m-sync:m=1", "pure:wait=99", "pure:", "+", "pure:wait=1=2"),
    *("pure:wait", "heavy-ball", "float32", "cuda", "runs/../../x", "test_loss", "log-normal"),
]
NUMBERS = [
    *("0", "1", "-1", "3", "40", "0.0", "-0.5", "0.2", "0.999", "1e308", "1e-320", "nan", "inf"),
    *("-inf", "1e400", "9223372036854775807", "99999999999999999999999", "0x10", "1_0", "+5"),
]
OTHERS = ["true", "false", "[]", "{}", "{a = 1}", "[[1]]", "1979-05-27", "07:32:00", "[", "'''"]
LINES = [
    *("[table]", "[[a]]", "[workers]", "a.b = 1", "data.x = 1", "= 1", "key", "# remark"),
    *("'' = 1", "stepsiz = [0.1]", "workers = 2 workers = 3", "methods = " + "[" * 2000),
]


def drawn_value(r: random.Random, like: str) -> str:
    """A value of any kind, mostly of the kind of the one that it replaces."""
    text = '"' + r.choice(TEXTS).translate({10: "\\n", 0: "\\u0000"}) + '"'
    number = r.choice(NUMBERS)
    if like.startswith("["):
        one = (lambda: drawn_value(r, '"')) if '"' in like else (lambda: r.choice(NUMBERS))
        return f"[{', '.join(one() for _ in range(r.randint(0, 3)))}]"
    return r.choices([text if like.startswith('"') else number, text, number, r.choice(OTHERS)],
                     [8, 1, 1, 1])[0]  # fmt: skip


def drawn_config(r: random.Random, valid: dict[str, str]) -> bytes:
    """A configuration after some accidents, in some encoding."""
    said = dict(valid)
    for _ in range(r.choice([0, 1, 1, 1, 2, 3])):
        key = r.choice([*valid, *MORE])
        if r.random() < 0.2:
            said.pop(key, None)
        else:
            said[key] = drawn_value(r, valid.get(key, '"'))
    lines = [f"{key} = {value}" for key, value in said.items()]
    if r.random() < 0.2:
        lines.insert(r.randrange(len(lines) + 1), r.choice(LINES))
    encoding = r.choices(["utf-8", "utf-8-sig", "utf-16", "latin-1"], [17, 1, 1, 1])[0]
    content = bytearray(r.choice(["\n", "\r\n"]).join(lines).encode(encoding, "replace"))
    if r.random() < 0.1:
        content[r.randrange(len(content))] ^= 1 << r.randrange(8)
    return bytes(content)


def is_long(content: bytes) -> bool:
    """Say whether it may be valid and ask for very much."""
    try:
        said = tomllib.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        return False
    sizes = [said.get(key, 0) for key in ("workers", "seeds", "steps", "evaluations", "dim")]
    return any(isinstance(size, int) and size > 1000 for size in sizes)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with files of odd names, which is also the user's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(asgrad.report, "write_figures", lambda comparison, folder: None)
    rows = "".join(f"{1 - i % 2 * 2} 1:{i % 5} 2:{i * 7 % 3} 3:1\n" for i in range(12))
    for name in ("rows.svm", "a=b.svm", "sp ace.svm", "ü.svm", "noext"):
        Path(name).write_text(rows)
    Path("empty.svm").touch()
    Path("folder.svm").mkdir()
    Path("loop.svm").symlink_to("loop.svm")
    times = "".join(f"{i % 2},{0.1 * (i % 3 + 1)}\n" for i in range(12))
    Path("times.csv").write_text("worker,seconds\n" + times)
    np.save("x0.npy", np.zeros(3))
    np.save("flat.npy", np.zeros((3, 1)))
    np.save("object.npy", np.array([None, 1, 2]), allow_pickle=True)
    return tmp_path


def check_config(seed: int, monkeypatch, capsys) -> None:
    """Draw a configuration and run it in a folder of its own."""
    r = random.Random(seed)
    command, valid = r.choice([("compare", COMPARE), ("train", TRAIN)])
    content = drawn_config(r, valid)
    if is_long(content):
        return
    Path("config.toml").write_bytes(content)
    out = f"runs/{seed}"
    monkeypatch.setattr(sys, "argv", ["asgrad", command, "config.toml", "--out", out])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        with pytest.raises(SystemExit) as end:
            process.main()
    said = capsys.readouterr().err.splitlines()
    errors = [line for line in said if not line.startswith("asgrad: warning: ")]
    if end.value.code == 2:
        assert len(errors) == 1, content
        assert errors[0].startswith("asgrad: ")
        assert len(errors[0]) < 1500
    elif end.value.code == 1:
        assert "diverged" in errors[0], content
    else:
        assert (end.value.code, errors) == (0, []), content


def test_any_configuration_runs_or_is_refused(place, monkeypatch, capsys):
    for seed in range(25):
        check_config(seed, monkeypatch, capsys)


@pytest.mark.soak
def test_any_configuration_for_long(place, monkeypatch, capsys):
    for seed in range(1000, 3000):
        check_config(seed, monkeypatch, capsys)
