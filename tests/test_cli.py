"""The commands, as they are typed."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from typer.main import get_command

import asgrad as ag
from asgrad.cli import main
from asgrad.cli.app import app
from asgrad.cli.options import with_options
from asgrad.experiments.config import CompareConfig, ProblemConfig, TrainConfig

SMALL = ["--workers", "3", "--until-time", "60", "--seeds", "1", "--stepsizes", "0.05,0.2"]


def asgrad(
    *arguments: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    ctrl_c_after: float | None = None,
) -> subprocess.CompletedProcess:
    """Run the command line in this process, whose imports and kernels are loaded already."""
    output, errors = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGINT)
    interrupt = threading.Timer(ctrl_c_after or 0, os.kill, (os.getpid(), signal.SIGINT))
    if ctrl_c_after is not None:
        interrupt.start()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", ["asgrad", *arguments])
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        if cwd:
            patch.chdir(cwd)
        with pytest.raises(SystemExit) as ended:
            main()
    interrupt.cancel()
    signal.signal(signal.SIGINT, handler)
    code = ended.value.code
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def refused(*arguments: str, **options) -> str:
    """Run a command that must be refused; return its one line."""
    run = asgrad(*arguments, **options)
    assert run.returncode == 2, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("asgrad: ")
    return lines[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small comparison, written by the command line."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = asgrad("compare", *SMALL, "--methods", "sync pure+mishchenko ace", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # quiet where nobody watches
    assert "pure+mishchenko" in done.stdout
    return folder


@pytest.mark.parametrize("first", [[], ["--stepsizes", "0.05,0.2"]], ids=["default", "given"])
def test_the_config_of_a_run_that_was_added_to_repeats_it(first, tmp_path):
    """Methods, seeds and stepsizes come from three runs; the grid is the default one, or given."""
    folder, again = tmp_path / "run", tmp_path / "again"
    told = ["--workers", "3", "--until-time", "30", "--batch", "8", "--evaluations", "4"]
    grown = ["--seeds", "1", "--widen", "0", "--split", "label", *first]
    asgrad("compare", *told, *grown, "--methods", "sync", "--out", str(folder))
    add = ["compare", "--resume", str(folder)]
    asgrad(*add, "--methods", "pure:wait=2+mishchenko", "--stepsizes", "0.031,0.2")
    done = asgrad(*add, "--seeds", "2", "--stepsizes", "0.4")
    repeated = asgrad("compare", str(folder / "config.toml"), "--out", str(again))
    assert repeated.stdout == done.stdout.replace(str(folder), str(again))
    for name in ("metrics", "results"):
        one, other = (pd.read_parquet(path / f"{name}.parquet") for path in (folder, again))
        pd.testing.assert_frame_equal(one, other)
    n_stepsizes = len({0.031, 0.05, 0.2, 0.4}) if first else 8 + len({0.031, 0.2, 0.4})
    assert one.groupby(["method", "seed"]).size().to_list() == [n_stepsizes] * 4


def test_compare_writes_a_run_that_its_own_config_repeats(run, tmp_path):
    """config.toml is a complete input; the second run's results are equal."""
    config = tomllib.loads((run / "config.toml").read_text())
    assert config["methods"] == ["sync", "pure+mishchenko", "ace"]
    again = tmp_path / "again"
    done = asgrad("compare", str(run / "config.toml"), "--out", str(again))
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(
        pd.read_parquet(run / "results.parquet"), pd.read_parquet(again / "results.parquet")
    )


def test_what_somebody_else_put_into_a_comparison_stays(tmp_path):
    """Also what cannot be copied."""
    folder = tmp_path / "run"
    arguments = ["compare", *SMALL, "--methods", "sync", "--out", str(folder)]
    assert asgrad(*arguments).returncode == 0
    os.mkfifo(folder / "pipe")
    (folder / "notes.txt").write_text("mine")
    assert "holds a finished comparison" in refused(*arguments)
    done = asgrad(*arguments, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_trace_of_a_comparison_is_replayed_on_its_problem(run):
    """Of several splits one is to be chosen; all else is as the run's config says."""
    trace = run / "traces" / "sync-seed0"
    assert "--split label" in refused("replay", str(trace))
    done = asgrad("replay", str(trace), "--split", "shared", "--stepsizes", "0.2")
    assert done.returncode == 0, done.stderr
    results = pd.read_parquet(run / "metrics.parquet")
    mine = results[(results.panel == "equal data") & (results.method == "sync")]
    last = mine[mine.stepsize == 0.2].iloc[-1]
    assert f"{last.gradient_norm:.3e}" in done.stdout


def test_show_prints_the_same_table(run):
    """`asgrad show` gives the methods of the run."""
    shown = asgrad("show", str(run))
    assert shown.returncode == 0
    for method in ("sync", "pure+mishchenko", "ace"):
        assert method in shown.stdout


def test_simulate_then_replay(tmp_path):
    """A trace that simulate wrote is replayed; a stepsize rule may be put on it afterwards."""
    path = tmp_path / "trace"
    made = asgrad("simulate", "ringmaster:max_delay=2", "--workers", "3", "--steps", "40",
                  "--times", "poisson", "--seed", "5", "--out", str(path))  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert "steps 40" in made.stdout
    assert "steps 40" in asgrad("show", str(path)).stdout
    trace = ag.Trace.load(path)
    expected = ag.simulate(
        ag.methods.Ringmaster(max_delay=2), ag.times.Poisson(), n_workers=3, steps=40, seed=5
    )
    assert trace.equals(expected)
    for rule in ("constant", "koloskova:stale=drop"):
        done = asgrad("replay", str(path), "--stepsizes", "0.1,0.4", "--recipe", rule)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("finished") == 2


def test_train_then_verify_then_ask_what_if(tmp_path):
    """A live run is stored, verified bit for bit, and answers what-if questions."""
    folder = tmp_path / "run"
    done = asgrad("train", "--method", "ringmaster:max_delay=3+mishchenko", "--workers", "3",
                  "--steps", "60", "--stepsize", "0.2", "--slowdown", "1,1,2",
                  "--out", str(folder))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "stopped by steps" in done.stdout
    verified = asgrad("verify", str(folder))
    assert verified.returncode == 0, verified.stderr
    assert "bit for bit: 2 models compared, from step 0 to 60" in verified.stdout
    what_if = asgrad("replay", str(folder), "--stepsizes", "0.1,0.3", "--recipe", "koloskova")
    assert what_if.stdout.count("finished") == 2
    from_trace = asgrad("replay", str(folder / "trace"), "--stepsizes", "0.1,0.3",
                        "--recipe", "koloskova")  # fmt: skip
    assert from_trace.stdout == what_if.stdout  # the run knows the problem
    moved = asgrad("verify", str(folder), "--data", "digits")
    assert moved.returncode == 0, moved.stderr
    for option in (["--batch", "3"], ["--config", "nowhere.toml"]):
        assert "names its own problem" in refused("replay", str(folder), *option)
    said = refused("verify", str(folder), "--stepsizes", "0.1")
    assert "No such option" in said
    assert "--stepsizes" in said
    shown = asgrad("show", str(folder))
    said = [line for line in done.stdout.splitlines() if not line.startswith("note: ")]
    assert shown.stdout.splitlines()[1:] == said[1:-1]

    from safetensors.numpy import load_file, save_file

    model = load_file(folder / "model.safetensors")["model"]
    model[7] = np.nextafter(model[7], 1.0)
    save_file({"model": model}, folder / "model.safetensors")
    assert "the model at step 60 differs from the replay" in refused("verify", str(folder))
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)
    assert "is damaged" in refused("verify", str(folder))
    (folder / "trace").rename(tmp_path / "trace")
    assert "no run that train wrote" in refused("verify", str(tmp_path / "trace"))


def test_methods_lists_all_with_references():
    """Every method with its arXiv number, every part, and how they are joined."""
    listed = asgrad("methods", env={"COLUMNS": "200"})
    assert listed.returncode == 0
    for kind in ("stepsize rule", "encoder", "correction", "optimizer", "--times"):
        assert f"\n{kind} " in listed.stdout
    assert listed.stdout.splitlines()[-1].startswith("A recipe is METHOD:name=value,…+PART:")
    for word in ("ringleader", "2509.22860", "shuffled", "2310.20452", "koloskova", "2206.08307",
                 "clip", "2606.13287", "delay-compensation", "1609.08326", "amsgrad"):  # fmt: skip
        assert word in listed.stdout


def test_a_list_in_a_recipe_is_a_method_each(tmp_path):
    """The config of the run names them one by one, so that others can be added."""
    folder = tmp_path / "run"
    done = asgrad("compare", *SMALL, "--problem", "tridiagonal", "--dim", "8", "--methods",
                  "pure:wait=1|2+clip sync", "--out", str(folder))  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = tomllib.loads((folder / "config.toml").read_text())
    assert config["methods"] == ["pure+clip", "pure:wait=2+clip", "sync"]
    assert config["dim"] == 8
    text = refused("train", "--method", "pure:wait=1|2", cwd=tmp_path)
    assert "'pure:wait=1|2' stands for 2 recipes; give one of them" in text
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_help_answers():
    """With and without --help."""
    assert "compare" in asgrad("--help").stdout
    assert "compare" in asgrad().stdout
    assert "--until-time" in asgrad("compare", "--help").stdout


def test_libsvm_file_is_compared(tmp_path):
    """A file with labels ±1 becomes a logistic regression by itself."""
    rows = [f"{1 if i % 2 else -1} {1 + i % 3}:1 {4 + i % 2}:{0.5 + i / 40}" for i in range(40)]
    path = tmp_path / "small.svm"
    path.write_text("\n".join(rows) + "\n")
    done = asgrad("compare", *SMALL, "--data", str(path), "--methods", "pure", "--split",
                  "shuffled", "--batch", "0", "--out", str(tmp_path / "run"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "logistic on small" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--methods", "pur"], "Did you mean 'pure'"),
        (["compare", "--methods", "pure,sync"], '--methods "pure sync"'),
        (["compare", "--methods", "pure+kolskova"], "Did you mean 'koloskova'"),
        (["compare", "--methods", "ringmaster:max_dely=3"], "Did you mean 'max_delay'"),
        (["compare", "--methods", "ringmaster:max_delay=2.5"], "max_delay must be an integer"),
        (["compare", "--methods", "m-sync:m=11"], "m must be at most 10"),
        (["compare", "--methods", "pure:wait=11"], "wait must be at most 10"),
        (["compare", "--times", "linar"], "Did you mean 'linear'"),
        (["compare", "--times", "fixed:scale=-1"], "scale must be finite and >= 0"),
        (["compare", "--split", "lable"], "Did you mean 'label'"),
        (["compare", "--split", "label label"], "name every split once"),
        (["compare", "--split", ""], "name every split once, got none"),
        (["compare", "--problem", "logistic"], "labels must be of two classes"),
        (["compare", "--problem", "logistc"], "Did you mean 'logistic'"),
        (["compare", "--data", "nowhere.svm"], "no file nowhere.svm"),
        (["compare", "--data", "digts"], "Did you mean 'digits'"),
        (["compare", "--workers", "0"], "workers"),
        (["compare", "--workers", "5000"], "at least one row a worker"),
        (["compare", "--stepsizes", "-1"], "stepsize must be finite and > 0"),
        (["compare", "--stepsizes", "a"], "numbers joined by commas"),
        (["train", "--slowdown", "1,2"], "one number for each of the 10 workers"),
        (["train", "--slowdown", "0.5"], "slowdown"),
        (["train", "--steps", "abc"], "--steps must be a valid integer, got 'abc'. It means: Stop"),
        (["train", "--stepsize", "0.1,0.2"], "--stepsize must be a valid number, got '0.1,0.2'"),
        (["train", "--until-time", "-1"], "until_time: must be greater than 0, got -1.0"),
        (["train", "--method", "pur"], "Did you mean 'pure'"),
        (["train", "--out", "/proc/nothing"], "cannot write"),
        (["compare", "--target", "nan"], "target"),
        (["compare", "--out", "/proc/nothing"], "cannot write"),
        (["compare", "nowhere.toml"], "cannot read nowhere.toml"),
        (["compare", "--wrkers", "3"], "--wrkers"),
        (["frobnicate"], "frobnicate"),
        (["replay"], "Missing argument"),
        (["replay", "nowhere"], "no trace at nowhere"),
        (["verify", "nowhere"], "no training run of asgrad at nowhere"),
        (["show", "nowhere"], "no run of asgrad"),
        (["simulate", "rennala:batch=0"], "batch must be an integer >= 1"),
        (["simulate", "pure", "--steps", "-1"], "steps must be an integer >= 0"),
        (["simulate", "pure", "--until-time", "1e15"], "or insist: insist=True, on the command"),
        (["simulate", "pure", "--out", "/proc/nothing"], "cannot write"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(arguments, said, tmp_path):
    """Each wrong input is answered by one clear line, and nothing is written."""
    assert said in refused(*arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_simulate_leaves_a_trace_that_is_there_before_it_plays(tmp_path, monkeypatch):
    """Nothing is played; with --overwrite it is replaced."""
    old = ag.simulate("pure", "fixed", n_workers=2, steps=3)
    old.save(tmp_path / "trace")
    played = sys.modules["asgrad.simulation.simulate"]
    with monkeypatch.context() as patched:
        patched.setattr(played, "_Run", None)
        said = refused("simulate", "pure", "--steps", "5", "--out", "trace", cwd=tmp_path)
    assert "holds a trace already" in said
    assert "--overwrite" in said
    assert ag.Trace.load(tmp_path / "trace").equals(old)
    command = ["simulate", "pure", "--steps", "5", "--out", "trace", "--overwrite"]
    assert asgrad(*command, cwd=tmp_path).returncode == 0
    assert ag.Trace.load(tmp_path / "trace").n_steps == 5


def test_misspelt_key_of_a_config_names_the_closest(tmp_path):
    """As does a config that is no TOML."""
    path = tmp_path / "config.toml"
    path.write_text("methds = ['pure']\n")
    assert "Did you mean 'methods'" in refused("compare", str(path))
    path.write_text("methods = [\n")
    assert "not valid TOML" in refused("compare", str(path))
    path.write_text("seeds = 'many'\n")
    assert "seeds" in refused("compare", str(path))


def test_ctrl_c_keeps_what_is_computed_or_writes_nothing(tmp_path):
    """SIGINT in a long comparison: exit code 130, and what was computed is kept to go on from."""
    folder = tmp_path / "run"
    done = asgrad("compare", "--methods", "reshuffling pure", "--until-time", "400000",
                  "--seeds", "2", "--out", str(folder), ctrl_c_after=2.0)  # fmt: skip
    stderr = done.stderr
    assert done.returncode == 130, stderr
    assert "interrupted" in stderr
    assert len(stderr.splitlines()) == 1, stderr
    left = [path.name for path in tmp_path.iterdir()]
    assert left == (["run-unfinished"] if f"--resume {folder}" in stderr else [])
    if left:
        assert "go on with it: asgrad compare --resume" in refused("show", str(folder))


def test_profile_measures_workers_that_compare_then_uses(tmp_path):
    """The slow worker shows; the run it writes serves as worker times."""
    folder = tmp_path / "profile"
    done = asgrad("profile", "--workers", "2", "--seconds", "1", "--slowdown", "1,30",
                  "--out", str(folder))  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[2:4]]
    assert [row[0] for row in rows] == ["0", "1"]
    assert float(rows[1][-1]) > 3
    assert f"--times from-run:run={folder}" in done.stdout
    compared = asgrad("compare", "--workers", "2", "--times", "from-run", str(folder),
                      "--until-time", "0.05", "--methods", "pure sync", "--seeds", "1",
                      "--stepsizes", "0.1", "--out", str(tmp_path / "run"))  # fmt: skip
    assert compared.returncode == 0, compared.stderr
    again = ("profile", "--workers", "3", "--out", str(folder))
    assert "holds a trace already" in refused(*again)
    assert asgrad(*again, "--seconds", "0.2", "--overwrite").returncode == 0
    assert ag.Trace.load(folder).n_workers == 3
    text = refused(*again, "--seconds", "1e-7", "--overwrite")
    assert "delivered nothing in" in text
    assert "--seconds" in text
    assert ag.Trace.load(folder).n_jobs > 3  # the old one is still there
    (folder / "header.json").unlink()
    assert "is left as it is" in refused("profile", "--seconds", "0.2", "--out", str(folder))
    within = tmp_path / "run" / "traces"
    (within.parent / "trace").mkdir()
    next(within.glob("*")).rename(within.parent / "trace")
    assert "is left as it is" in refused("profile", "--out", str(within.parent / "trace"))


@pytest.mark.parametrize("out", [None, "a, b=c:d 'e'"])
def test_what_profile_says_to_do_next_can_be_done(out, capsys, monkeypatch, tmp_path):
    """Whatever the path; without one, a fresh name is found."""
    monkeypatch.chdir(tmp_path)
    small = ["--workers", "2", "--seconds", "0.1", *(["--out", out] if out else [])]
    for name in ("runs/profile", "runs/profile-2")[: 1 if out else 2]:
        monkeypatch.setattr(sys, "argv", ["asgrad", "profile", *small])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        said = capsys.readouterr().out.strip().splitlines()[-1]
        assert ag.Trace.load(out or name).n_jobs > 2
    command = shlex.split(said.partition("asgrad ")[2])
    assert command[-1].endswith(("runs/profile-2", f'run="{out}"'))
    monkeypatch.setattr(
        sys, "argv", ["asgrad", *command, "--methods", "pure", "--seeds", "1", "--stepsizes", "0.1",
                      "--until-time", "0.01"],
    )  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


def test_an_interrupted_profile_does_not_replace_a_whole_one(tmp_path):
    """It is kept beside it."""
    folder = tmp_path / "profile"
    small = ["profile", "--workers", "2", "--out", str(folder)]
    assert asgrad(*small, "--seconds", "0.2").returncode == 0
    whole = ag.Trace.load(folder)
    done = asgrad(*small, "--seconds", "60", "--overwrite", ctrl_c_after=1.0)
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr
    assert f"from-run:run={folder}-interrupted" in done.stdout
    assert ag.Trace.load(folder).equals(whole)
    assert ag.Trace.load(f"{folder}-interrupted").n_jobs > 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "."],
        ["show", "./-unfinished"],
        ["replay", "/"],
        ["train", "--resume", "."],
        ["train", "--resume", ""],
    ],
)
def test_paths_without_a_name_hold_no_run(arguments, tmp_path):
    """One line, whatever the path."""
    text = refused(*arguments, cwd=tmp_path)
    assert any(said in text for said in ("no run", "no training run", "is not a trace", "no trace"))


def test_a_run_may_stand_among_traces(tmp_path):
    """It names its own problem, whatever configuration stands nearby."""
    (tmp_path / "config.toml").write_text("workers = 2\nsteps = 5\n")
    done = asgrad("train", "config.toml", "--out", "traces/run1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    verified = asgrad("verify", "traces/run1", cwd=tmp_path)
    assert verified.returncode == 0, verified.stderr


def test_a_comparison_is_shown_whatever_stands_beside_it(run, tmp_path):
    """A folder that is named like an unfinished training, or its own name."""
    (tmp_path / "mine-unfinished").mkdir()
    shutil.copytree(run, tmp_path / "mine")
    shutil.copytree(run, tmp_path / "other-unfinished")
    for name in ("mine", "other-unfinished"):
        assert asgrad("show", str(tmp_path / name)).returncode == 0


def test_a_run_that_diverges_says_so_with_its_exit_code(tmp_path):
    """It is kept all the same."""
    folder = tmp_path / "run"
    config = tmp_path / "config.toml"
    config.write_text("evaluate_every = 1000\n")  # the gradients are seen to diverge first
    done = asgrad("train", str(config), "--workers", "2", "--stepsize", "1e6", "--steps", "100000",
                  "--out", str(folder))  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "asgrad: diverged; try a smaller stepsize\n"
    assert "stopped by diverged" in done.stdout
    assert "lost 11, in flight 2" in done.stdout
    assert asgrad("verify", str(folder)).returncode == 0


def test_test_rows_show_in_what_a_run_says(tmp_path):
    """Wherever its end is shown: the loss on them, from the first evaluation to the last."""
    run = str(tmp_path / "run")
    train = asgrad("train", "--workers", "2", "--steps", "5", "--test", "0.2", "--out", run)
    metrics = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    first, last = (f"{metrics.test_loss.iloc[end]:.5g}" for end in (0, -1))
    for shown in (train.stdout, asgrad("show", run).stdout):
        assert f", test loss {first} → {last}, accuracy " in shown
    head, row = asgrad("replay", run).stdout.splitlines()[-2:]
    assert head.split()[-4:] == ["loss", "test", "loss", "accuracy"]
    assert row.split()[-2] == last


@pytest.mark.parametrize(
    ("command", "config", "others"),
    [
        ("compare", CompareConfig, {"extra_stepsizes"}),
        ("train", TrainConfig, {"resources"}),  # a table
        ("profile", ProblemConfig, set()),
        ("replay", ProblemConfig, {"workers"}),  # its trace has them
    ],
)
def test_every_field_of_a_configuration_is_an_option(command, config, others):
    """Named like the field, with what the field means for help."""
    options = {parameter.name: parameter for parameter in get_command(app).commands[command].params}
    assert set(config.model_fields) - set(options) == others
    for name in set(config.model_fields) - others:
        assert options[name].opts[0] == f"--{name.replace('_', '-')}"
        assert config.model_fields[name].description[1:] in options[name].help
    assert next(iter(options)) in ("config", "trace")


def test_options_are_read_as_their_fields_take_them():
    """Numbers joined by commas, texts by spaces, one of them as it is where one will do."""
    taken = {}

    @with_options(CompareConfig, only=["methods", "split", "target", "stepsizes", "test", "equal"])
    def compare(said: dict[str, Any]) -> None:
        taken.update(said)

    @with_options(TrainConfig, only=["cpus", "slowdown", "until_time", "on", "restarts"])
    def train(said: dict[str, Any], last: int = 3) -> None:
        taken.update(said, last=last)

    small = typer.Typer()
    small.command()(compare)
    small.command()(train)
    for line, said in {
        'compare --methods "sync pure:wait=1|2+clip" --split "label shared" --target 0.1,1e-2': {
            "methods": ["sync", "pure:wait=1|2+clip"],
            "split": ["label", "shared"],
            "target": [0.1, 0.01],
        },
        "compare --split label --target 0.1 --stepsize 1 --test 0.2 --equal": {
            "split": "label", "target": 0.1, "stepsizes": [1.0], "test": 0.2, "equal": True,
        },
        "compare --test a.svm": {"test": "a.svm"},
        "train --cpus 1 --slowdown 2 --until-time 3 --on ray --restarts 4 --last 5": {
            "cpus": 1.0, "slowdown": [2.0], "until_time": 3.0, "on": "ray", "restarts": 4,
            "last": 5,
        },
        "train --cpus 1,0.5": {"cpus": [1.0, 0.5], "last": 3},
    }.items():  # fmt: skip
        taken.clear()
        get_command(small).main(shlex.split(line), standalone_mode=False)
        assert taken == said


def test_options_of_the_problem_arrive_in_every_command(tmp_path):
    """What the run was, by its config; what was replayed, by its loss at x_0 with λ = 2."""
    said = ["--split", "dirichlet", "--alpha", "7", "--strength", "2", "--x0", "ones"]
    said += ["--regularizer", "nonconvex"]
    run = str(tmp_path / "run")
    asgrad("train", *said, "--workers", "2", "--steps", "1", "--out", run)
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert (config["alpha"], config["strength"], config["regularizer"]) == (7, 2, "nonconvex")
    trace = str(tmp_path / "trace")
    assert asgrad("simulate", "pure", "--workers", "2", "--steps", "1", "--out", trace).stdout
    shown = asgrad("replay", trace, *said, "--stepsize", "1e-12").stdout
    assert "split dirichlet" in shown
    # λ Σ x²/(1 + x²) = 640 for 640 ones; at equal scores every class has log(10).
    assert f"{640 + np.log(10):.5g}" in shown
    profile = ["--workers", "2", "--seconds", "0.1", "--out", str(tmp_path / "profile")]
    assert asgrad("profile", *said, *profile).returncode == 0


def test_a_problem_without_labels_has_no_accuracy(tmp_path):
    folder = tmp_path / "run"
    done = asgrad("train", "--problem", "tridiagonal", "--workers", "2", "--steps", "5",
                  "--out", str(folder))  # fmt: skip
    assert "accuracy -\n" in done.stdout
    for shown in (done.stdout, asgrad("replay", str(folder)).stdout):
        assert "nan" not in shown
        assert "test loss" not in shown


def test_a_run_in_virtual_time_is_a_simulation_with_a_model(tmp_path):
    """Its trace is that of simulate; it is verified, and goes on."""
    out, trace = str(tmp_path / "run"), str(tmp_path / "trace")
    done = asgrad("train", "--on", "virtual", "--times", "normal:scale=sqrt", "--workers", "3",
                  "--method", "shuffled", "--steps", "30", "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "shuffled, times normal:scale=sqrt, 3 workers" in done.stdout
    done = asgrad("train", "--resume", out, "--steps", "50")
    assert done.returncode == 0, done.stderr
    assert "bit for bit" in asgrad("verify", out).stdout
    asgrad("simulate", "shuffled", "--times", "normal:scale=sqrt", "--workers", "3",
           "--steps", "50", "--out", trace)  # fmt: skip
    assert ag.Trace.load(f"{out}/trace").equals(ag.Trace.load(trace))


def test_a_finished_run_is_prolonged(tmp_path):
    """--resume with a new limit; other settings are the run's own."""
    folder = tmp_path / "run"
    first = asgrad("train", "--workers", "2", "--steps", "50", "--out", str(folder))
    assert first.returncode == 0, first.stderr
    assert "leave out method" in refused("train", "--resume", str(folder), "--method", "sync")
    assert "nothing to resume" in refused("train", "--resume", str(tmp_path / "none"))
    more = asgrad("train", "--resume", str(folder), "--steps", "120")
    assert more.returncode == 0, more.stderr
    assert "steps 120 in" in more.stdout
    verified = asgrad("verify", str(folder))
    assert "3 models compared, from step 0 to 120" in verified.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_ctrl_c_ends_a_live_run_in_order(tmp_path):
    """It is saved as interrupted, and can be verified and resumed."""
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "asgrad", "train", "--workers", "2", "--until-time", "100",
               "--out", str(folder)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    kept = tmp_path / "run-unfinished" / "checkpoints"
    limit = time.monotonic() + 60
    try:
        while not list(kept.glob("step-*")) and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()  # if it is still there
    assert process.returncode == 130, errors
    assert errors == f"asgrad: interrupted; go on with: asgrad train --resume {folder}\n"
    assert "stopped by interrupted" in output
    assert asgrad("verify", str(folder)).returncode == 0


def test_a_run_on_ray_is_verified(tmp_path):
    """Ray is started for it and stopped, also where there is no home to keep its token in."""
    pytest.importorskip("ray")
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "asgrad", "train", "--on", "ray", "--workers", "2",
               "--steps", "40", "--out", str(folder)]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "HOME": "/proc/nothing"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "times measured:ray" in done.stdout
    assert asgrad("verify", str(folder)).returncode == 0


def test_ctrl_c_before_anything_is_done_is_one_line(monkeypatch):
    """In whichever moment of a command it comes."""

    def interrupted(*of):
        raise KeyboardInterrupt

    monkeypatch.setattr("asgrad.experiments.TrainConfig.read", interrupted)
    done = asgrad("train")  # which gives SIGINT back to whoever had it
    assert done.returncode == 130
    assert done.stderr == "asgrad: interrupted.\n"


LONG = "n" * 5000
NESTED = "[" * 100_000


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--resume", LONG],
        ["train", "--out", LONG],
        ["train", "--out", "n" * 250],
        ["train", "--data", LONG],
        ["train", "nested.toml"],
        ["train", "--resume", "nested"],
        ["profile", "--out", LONG],
        ["profile", LONG],
        ["profile", "nested.toml"],
        ["show", LONG],
        ["show", "nested"],
        ["replay", LONG],
        ["verify", LONG],
        ["verify", "nested"],
        ["replay", "nested", "--config", "nested.toml"],
        ["compare", LONG],
        ["compare", "nested.toml"],
        ["compare", "--times", f"from-run:{LONG}"],
    ],
    ids=lambda arguments: " ".join(text[:12] for text in arguments),
)
def test_long_names_and_deep_nesting_are_one_line(arguments, tmp_path):
    """Through every door."""
    (tmp_path / "nested.toml").write_text(f"a = {NESTED}")
    (tmp_path / "nested" / "trace").mkdir(parents=True)
    (tmp_path / "nested" / "model.safetensors").write_bytes(b"")
    (tmp_path / "nested" / "run.json").write_text(NESTED)
    before = sorted(tmp_path.rglob("*"))
    assert len(refused(*arguments, cwd=tmp_path)) < 20_000
    assert sorted(tmp_path.rglob("*")) == before
