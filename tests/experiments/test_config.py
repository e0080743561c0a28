"""Problems from a configuration: neural networks, what they refuse, and that torch is optional."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import numpy as np
import pytest

import asgrad as ag
from asgrad.experiments import question
from asgrad.experiments.config import CompareConfig, ProblemConfig, TrainConfig, to_toml
from asgrad.experiments.training import (
    StoredTraining,
    profile,
    run_training,
    save_training,
    workers_of,
)

_NO_TORCH = """
import sys
import tomllib
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, NoTorch())
"""


def without_torch(code: str) -> subprocess.CompletedProcess:
    """Run some Python where torch cannot be imported."""
    command = [sys.executable, "-c", _NO_TORCH + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_torch_a_network_is_refused_in_one_line():
    """The line says what to install; problems that do without torch are built as ever."""
    arguments = ["asgrad", "train", "--problem", "mlp", "--stepsize", "0.1"]
    run = without_torch(f"sys.argv = {arguments}\nfrom asgrad.cli import main\nmain()")
    assert run.returncode == 2
    assert run.stderr == "asgrad: problem 'mlp' needs PyTorch: pip install 'asgrad[torch]'.\n"
    run = without_torch(
        "from asgrad.experiments.config import ProblemConfig\n"
        "print(ProblemConfig(workers=3).build_problem().n_workers)"
    )
    assert run.stdout == "3\n", run.stderr


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"problem": "mlp", "strength": 0.5}, "strength: does not apply to problem 'mlp', got 0.5"),
        ({"problem": "cnn", "regularizer": "nonconvex"}, "regularizer: does not apply"),
        ({"problem": "resnet20", "noise": 1.0}, "noise: does not apply to problem 'resnet20'"),
        ({"problem": "mlp", "dim": 7}, "dim: does not apply to problem 'mlp', got 7"),
        ({"problem": "resnet20", "test": 0.2}, "test: does not apply to problem 'resnet20', got"),
        ({"problem": "cnn", "data": "breast-cancer"}, "must be 'digits' for problem 'cnn', got"),
        ({"problem": "mlp", "split": "lable"}, "Did you mean 'label'?"),
        ({"evaluation_rows": 5}, "evaluation_rows: does not apply to problem 'auto', got 5"),
        ({"problem": "tridiagonal", "evaluation_batch": 5}, "evaluation_batch: does not apply"),
        ({"problem": "resnet"}, "Did you mean 'resnet20'?"),
    ],
)
def test_options_that_do_not_fit_a_network_are_refused(refused, said, text):
    """One clear line each, before torch is imported."""
    assert text in refused(lambda: ProblemConfig.read(None, said).build_problem())


def test_a_configuration_builds_the_networks(tmp_path, refused):
    """Workers, split and batch arrive; 0 rows means all; `data` is CIFAR-10's folder."""
    pytest.importorskip("torch")
    from asgrad.problems import networks

    said = {"problem": "mlp", "workers": 3, "batch": 8, "split": "dirichlet", "alpha": 2.0}
    built = ProblemConfig.read(None, said).build_problem()
    own = networks.digits_mlp(3, batch=8, split="dirichlet", alpha=2.0)
    for problem in (built, own):
        assert problem.label == "MLP with 2410 parameters, 3 workers"
    ours, theirs = (p.gradient(p.x0, 2, 0, np.random.default_rng(1)) for p in (built, own))
    np.testing.assert_array_equal(ours, theirs)
    built = ProblemConfig.read(None, {"problem": "cnn", "workers": 2, "batch": 0}).build_problem()
    assert built.label == "CNN with 6090 parameters, 2 workers"
    assert built.batch == 0

    said = {"problem": "cnn", "workers": 3, "test": 0.25, "equal": True}
    built = ProblemConfig.read(None, said).build_problem()
    assert built.notes == (
        "449 of 1797 rows, drawn at random, are for testing",
        "1 of 1348 rows are left out, for equal shards of 449 rows",
    )
    said = {"problem": "mlp", "workers": 2, "evaluation_rows": 0, "evaluation_batch": 7}
    built = ProblemConfig.read(None, said).build_problem()
    assert sum(len(rows) for rows in built._training.evaluated) == 1437
    assert built._evaluation.piece == 7
    assert not built.evaluates_gradient
    for wanted in ({"gradient_norm": True}, {"target": 0.1}):  # a target is one on ‖∇f‖
        config = TrainConfig.read(None, {"problem": "mlp", "workers": 2, **wanted})
        assert config.build_problem().evaluates_gradient
    said = {"problem": "mlp", "split": "shared", "best": "gradient_norm"}
    assert CompareConfig.read(None, said).build_problems().evaluates_gradient

    resnet = {"problem": "resnet20", "workers": 2, "batch": 0}
    assert "folder, got digits; give cifar-10" in refused(
        ProblemConfig.read(None, resnet).build_problem
    )
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (tmp_path / name).write_bytes(bytes(2 * 3073))
    built = ProblemConfig.read(None, {**resnet, "data": str(tmp_path)}).build_problem()
    assert built.label == "ResNet20 with 269722 parameters, 2 workers"


def test_a_stored_run_of_a_network_is_verified_bit_for_bit(tmp_path):
    """config.toml names every field, those that do not apply too, and builds the same problem."""
    pytest.importorskip("torch")
    said = {"problem": "mlp", "workers": 2, "steps": 30, "stepsize": 0.2}
    for name, options, dtype in (
        ("own", {}, "float32"),
        ("double", {"dtype": "float64", "evaluate_every": 0.0}, "float64"),
    ):
        config = TrainConfig.read(None, {**said, **options, "out": str(tmp_path / name)})
        run = run_training(config, config.build_problem())
        save_training(run, config)
        stored = StoredTraining.load(tmp_path / name)
        assert stored.model.dtype == dtype
        assert stored.metrics["test_loss"].size == (0 if options else run.steps.size)
        assert stored.verify(stored.config.build_problem()) == [0, 30]


def test_a_network_needs_a_stepsize(refused, monkeypatch):
    """Its smoothness is not known: the default grid, and rules that use L, are refused at once."""
    pytest.importorskip("torch")
    config = TrainConfig.read(None, {"problem": "mlp", "workers": 2})
    problem = config.build_problem()
    assert "give --stepsize" in refused(lambda: run_training(config, problem))
    monkeypatch.setattr(question, "simulate", None)  # is not called
    times, methods = ag.times.Linear(), ["sync", "pure+koloskova"]
    assert "give the stepsizes" in refused(lambda: ag.compare(problem, times, methods, steps=9))
    text = refused(lambda: ag.compare(problem, times, methods, steps=9, stepsizes=[0.1]))
    assert "koloskova:smoothness=10" in text


@pytest.mark.parametrize(("size", "said"), [(0.0, "it is 0"), (1e-157, "it is 1.25e-315")])
def test_a_smoothness_of_which_no_stepsize_follows_is_named(refused, tmp_path, size, said):
    """Features of nothing, or of next to nothing: 1/L would be infinite."""
    path = tmp_path / "flat.svm"
    path.write_text(f"1 1:{size}\n-1 2:{size}\n1 1:{size}\n-1 2:{size}\n")
    options = {"data": str(path), "workers": 2, "split": "shared", "batch": 0}
    (tmp_path / "config.toml").write_text("strength = 0.0")
    config = TrainConfig.read(tmp_path / "config.toml", options)
    problem = config.build_problem()
    for call in (
        lambda: run_training(config, problem),
        lambda: ag.compare(problem, "linear", ["pure"], steps=9),
        lambda: ag.compare(problem, "linear", ["pure+koloskova"], steps=9, stepsizes=[0.1]),
    ):
        assert f"smoothness constant gives no stepsize, {said}" in refused(call)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("batch = true", "batch: must be a valid integer, got True. It means: rows of"),
        ("workers = '4'", "workers: must be a valid integer, got '4'"),
        ("stepsize = '0.1'", "stepsize: must be a valid number, got '0.1'"),
        ("slowdown = [1, 'a']", "slowdown: must be a valid number, got 'a'"),
        ("until_time = inf", "until_time: must be a finite number, got inf"),
        ("on = 'spark'", "on: must be 'threads', 'ray' or 'virtual', got 'spark'"),
        ("methods = ['pure']", "Did you mean 'method'"),
    ],
)
def test_a_value_of_another_kind_is_refused(line, said, tmp_path, refused):
    """Nothing is guessed from a text or a truth value."""
    path = tmp_path / "config.toml"
    path.write_text(line)
    assert said in refused(lambda: TrainConfig.read(path, {}))


@pytest.mark.parametrize(
    "said",
    [
        {"gpus": 1.0},
        {"cpus": [1.0, 2.0]},
        {"address": "auto"},
        {"resources": {"a100": 1}},
        {"strategy": "SPREAD"},
        {"patience": 1.0},
        {"on": "ray", "sleep": "poisson"},
        {"times": "linear"},
        {"on": "virtual", "slowdown": [1.0, 2.0]},
        {"on": "virtual", "sleep": "poisson"},
    ],
)
def test_what_only_other_workers_know_is_refused(said, refused):
    config = TrainConfig.read(None, {"workers": 2, **said})
    key = list(said)[-1]
    known = {"times": "virtual", "sleep": "threads", "slowdown": "threads or ray"}.get(key, "ray")
    text = refused(lambda: workers_of(config))
    assert text.startswith(f"{key}: is for workers on {known} only, got ")


def test_workers_in_virtual_time_have_times_and_an_end(refused):
    """Linear times by default, and the end of a comparison."""
    config = TrainConfig.read(None, {"on": "virtual"})
    assert (config.times, config.until_time) == ("linear", 600.0)
    assert workers_of(config) == ag.Virtual(ag.times.Linear())
    config = TrainConfig.read(None, {"on": "virtual", "times": "sqrt", "steps": 5, "restarts": 1})
    assert config.until_time is None
    assert workers_of(config) == ag.Virtual("sqrt", restarts=1)
    text = refused(lambda: profile(config, config.build_problem(), 1.0))
    assert text.startswith("profile: it measures workers on threads or ray, got on = 'virtual'")


def test_a_file_says_all_that_workers_take(tmp_path, refused):
    """Also what is no number; and what it writes down is read again."""
    path = tmp_path / "config.toml"
    path.write_text(
        "on = 'ray'\nworkers = 2\ncpus = [1, 0.5]\ngpus = 0.5\nstrategy = 'SPREAD'\n"
        "resources = [{a100 = 1}, {}]\npatience = 5\nfirst_deadline = 60\nrestarts = 1\n"
    )
    config = TrainConfig.read(path, {})
    found = workers_of(config)
    wanted = ag.Ray(cpus=[1.0, 0.5], gpus=0.5, strategy="SPREAD", resources=[{"a100": 1.0}, {}],
                    patience=5.0, first_deadline=60.0, restarts=1)  # fmt: skip
    assert found == wanted
    path.write_text(to_toml(config.model_dump()))
    assert TrainConfig.read(path, {}) == config
    threads = workers_of(TrainConfig.read(None, {"sleep": "exponential:scale=0.1"}))
    assert threads.sleep == ag.times.Exponential(0.1)
    assert "resources: must be a valid" in refused(
        lambda: TrainConfig.read(None, {"resources": "a100"})
    )
    assert "unknown strategy" in refused(
        lambda: workers_of(TrainConfig.read(None, {"on": "ray", "strategy": "PACK"}))
    )


def test_a_device_is_for_networks(refused):
    """As what networks do not have is for the others."""
    for problem in ("auto", "tridiagonal"):
        said = {"problem": problem, "device": "cpu"}
        text = refused(lambda said=said: ProblemConfig.read(None, said))
        assert text == f"device: does not apply to problem {problem!r}, got 'cpu'; leave it out."
    pytest.importorskip("torch")
    config = ProblemConfig.read(None, {"problem": "mlp", "device": "nowhere"})
    assert "cannot be brought to device 'nowhere'" in refused(config.build_problem)


def test_the_problem_alone_is_read_from_any_file(tmp_path, refused):
    """A comparison's or a training's; a key of neither is refused."""
    path = tmp_path / "config.toml"
    path.write_text("method = 'sync'\nbatch = 7\nsteps = 3\n")
    assert ProblemConfig.read(path, {}).batch == 7
    path.write_text("methods = ['sync']\nbatch = 8\n")
    assert ProblemConfig.read(path, {}).batch == 8
    path.write_text("methd = 'sync'\n")
    assert "Did you mean 'method" in refused(lambda: ProblemConfig.read(path, {}))


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"problem": "tridiagonal", "split": "label"}, "split: does not apply to problem 'tridiag"),
        (
            {"problem": "tridiagonal", "alpha": 0.5},
            "alpha: does not apply to problem 'tridiagonal'",
        ),
        ({"problem": "tridiagonal", "regularizer": "l2"}, "regularizer: does not apply to problem"),
        ({"problem": "tridiagonal", "strength": 1e-3}, "strength: does not apply to problem"),
        ({"problem": "tridiagonal", "data": "digits"}, "data: does not apply to problem"),
        ({"problem": "tridiagonal", "batch": 32}, "batch: does not apply to problem"),
        ({"problem": "tridiagonal", "test": 0.2}, "test: does not apply to problem"),
        ({"problem": "softmax", "dim": 1000}, "dim: does not apply to problem 'softmax', got 1000"),
        ({"noise": 0.01}, "noise: does not apply to problem 'auto', got 0.01"),
        ({"alpha": 0.5}, "alpha: does not apply to split 'label', got 0.5; leave it out"),
        ({"split": "shared", "alpha": 0.5}, "alpha: does not apply to split 'shared', got 0.5"),
        ({"split": "shared", "equal": True}, "equal: does not apply to split 'shared', got True"),
        ({"split": "dirichlet", "equal": True}, "equal: does not apply to split 'dirichlet'"),
    ],
)
def test_what_does_not_apply_is_refused_if_it_was_said_at_all(said, text, tmp_path, refused):
    """A file may repeat a default, as that of a run does; not another value."""
    assert text in refused(lambda: ProblemConfig.read(None, said))
    path = tmp_path / "config.toml"
    path.write_text(to_toml(said))
    key = text.partition(":")[0]
    if said[key] == ProblemConfig.model_fields[key].default:
        ProblemConfig.read(path, {})
    else:
        assert text in refused(lambda: ProblemConfig.read(path, {}))


@pytest.mark.parametrize("problem", ["auto", "least-squares", "tridiagonal", "mlp"])
def test_a_file_that_holds_every_key_is_read_again(problem, tmp_path):
    config = ProblemConfig.read(None, {"problem": problem})
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config.model_dump()))
    assert ProblemConfig.read(path, {}) == config
    assert ProblemConfig.read(
        path, {"split": "dirichlet", "alpha": 2.0} if problem == "auto" else {}
    )


def test_several_splits_share_what_applies_to_one(refused):
    """alpha is the Dirichlet split's, equal shards are those of the others."""
    said = {"split": ["shared", "dirichlet", "label"], "alpha": 2.0, "equal": True, "workers": 4}
    built = CompareConfig.read(None, said).build_problems()
    sizes = [problem.shards.sizes.tolist() for problem in built.values()]
    assert sizes[0] == [1797]
    assert len(set(sizes[1])) > 1
    assert sizes[2] == [449] * 4
    assert CompareConfig.read(None, {"problem": "tridiagonal"}).build_problems().name
    text = refused(lambda: CompareConfig.read(None, {"alpha": 2.0}))
    assert text == "alpha: does not apply to split 'label and shared', got 2.0; leave it out."


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ("1 2 1 2", "logistic: the targets of small are of two classes, 1 and 2"),
        ("1 -1 1 -1", "logistic: the targets of small are of two classes, -1 and 1"),
        ("3 1 2 1 2 3", "softmax: the targets of small are integers, 3 classes"),
        ("0.5 1.5 2 3", "least-squares: the targets of small are real numbers, not classes"),
        ("1 2 3 4", "least-squares: the targets of small are 4 different integers in 4 rows, too"),
    ],
)
def test_auto_says_what_it_chose_and_why(targets, said, tmp_path):
    path = tmp_path / "small.svm"
    path.write_text("".join(f"{y} 1:{i}\n" for i, y in enumerate(targets.split())))
    options = {"data": str(path), "workers": 2, "split": "contiguous", "batch": 0}
    built = ProblemConfig.read(None, options).build_problem()
    assert built.name == said.partition(":")[0]
    assert built.notes[0].startswith(f"the problem is {said}")
    named = ProblemConfig.read(None, {**options, "problem": built.name}).build_problem()
    assert named.notes == built.notes[1:]


def test_the_start_and_the_test_rows_come_from_the_configuration(tmp_path):
    """By name, or as files beside the configuration."""
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "a.svm").write_text("1 1:2\n-1 2:3\n1 2:1\n-1 1:1\n")
    (folder / "a.t").write_text("1 1:5\n-1 2:7\n")
    np.save(folder / "start.npy", [3.0, 4.0])
    path = folder / "config.toml"
    path.write_text(
        "data = 'a.svm'\ntest = 'a.t'\nx0 = './start.npy'\nsplit = 'shuffled'\nworkers = 2\n"
        "batch = 0\n"
    )
    config = ProblemConfig.read(path, {})
    assert config.data == str(folder / "a.svm")
    built = config.build_problem()
    assert built.x0.tolist() == [3.0, 4.0]
    assert built.test_targets.tolist() == [1.0, -1.0]
    assert ProblemConfig.read(path, {"x0": "ones"}).build_problem().x0.tolist() == [1.0, 1.0]
    share = ProblemConfig.read(path, {"test": 0.25, "x0": "normal"}).build_problem()
    assert share.test_targets.size == 1
    again = ProblemConfig.read(
        None,
        config.model_dump(
            exclude={"dim", "noise", "alpha", "device", "evaluation_rows", "evaluation_batch"}
        ),
    )
    assert again == config  # its paths are whole
    quadratic = ProblemConfig.read(None, {"problem": "tridiagonal", "x0": "zeros", "dim": 5})
    assert quadratic.build_problem().x0.tolist() == [0.0] * 5


def test_a_network_starts_where_the_configuration_says():
    pytest.importorskip("torch")
    built = ProblemConfig.read(None, {"problem": "mlp", "workers": 2, "x0": "zeros"})
    assert not built.build_problem().x0.any()


def test_paths_in_a_file_are_relative_to_its_folder(tmp_path, monkeypatch, refused):
    """Not to where one stands; at home they may begin with ~."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("there", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "here.svm").write_text("1 1:2\n-1 1:3\n")
    (tmp_path / "there" / "its").write_text("1 1:2\n-1 1:3\n")
    (tmp_path / "home" / "mine.svm").write_text("1 1:2\n-1 1:3\n")
    path = tmp_path / "there" / "config.toml"

    def read(name, **said):
        path.write_text(f"data = '{name}'")
        return ProblemConfig.read(path.relative_to(tmp_path), said).data

    assert read("its") == str(tmp_path / "there" / "its")
    assert read("../here.svm") == str(tmp_path / "here.svm")
    assert read("~/mine.svm") == str(tmp_path / "home" / "mine.svm")
    assert read("digts") == "digts"  # a misspelt name, for which there is a hint
    assert read(tmp_path / "gone.svm") == str(tmp_path / "gone.svm")  # may be said to have moved
    text = refused(lambda: read("here.svm"))
    assert text == (
        f"data: no file '{tmp_path}/there/here.svm'; paths in there/config.toml are relative to "
        "its folder."
    )
    assert read("here.svm", data="here.svm") == str(tmp_path / "here.svm")  # an option's are not


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xef\xbb\xbfbatch = 7\n", None),
        (b"batch = 7\r\n", None),
        (b"a = " + b"[" * 20_000 + b"]" * 20_000, "is not valid TOML: it is nested too deeply"),
        (b"a = " + b"{a=" * 20_000, "is not valid TOML: it is nested too deeply"),
        (b"a." * 2_000 + b"a = 1", "unknown key of"),
        (b"a" * 100_000 + b" = 1", "unknown key of"),
        (b"data = '" + b"a" * 100_000 + b"'", "unknown data set 'aaa"),
        (b"data = '" + b"a/" * 50_000 + b"'", "data: no file "),
        (b"batch = 7\0", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
    ],
)
def test_odd_files_are_read_or_refused_in_one_short_line(text, said, tmp_path, refused):
    path = tmp_path / "config.toml"
    path.write_bytes(text)
    if said is None:
        assert ProblemConfig.read(path, {}).batch == 7
        return
    line = refused(lambda: ProblemConfig.read(path, {}).build_problem())
    assert said in line
    assert len(line) < 1000


def test_data_are_found_from_anywhere(tmp_path, monkeypatch):
    """A file's path is made whole; a name of bundled data stays, whatever lies about."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.svm").write_text("1 1:2\n-1 1:3\n")
    (tmp_path / "digits").mkdir()
    assert ProblemConfig.read(None, {"data": "small.svm"}).data == str(tmp_path / "small.svm")
    assert ProblemConfig.read(None, {"data": "digits"}).data == "digits"
    assert ProblemConfig.read(None, {"data": "nowhere.svm"}).data == "nowhere.svm"


def test_measured_times_are_found_from_the_configs_folder_and_from_anywhere(tmp_path, monkeypatch):
    """Relative to the config where it names them, else to where one stands; kept whole."""
    folder = tmp_path / "a folder, with: signs"
    folder.mkdir()
    (folder / "times.csv").write_text("worker,seconds\n0,1\n1,2\n")
    (folder / "config.toml").write_text('times = "from-table:times.csv"\nworkers = 2\n')
    config = CompareConfig.read(folder / "config.toml", {})
    assert config.until_time == 60 * 2.0
    monkeypatch.chdir(folder)
    said = CompareConfig.read(None, {"times": "from-table:times.csv", "workers": 2})
    assert said.times == config.times
    monkeypatch.chdir(tmp_path)
    trace = ag.simulate("pure", config.times, n_workers=2, steps=4)
    assert trace.step_times.tolist() == [1.0, 2.0, 2.0, 3.0]


@pytest.mark.parametrize("text", ["🙂", "é", "a\x7fb", '"\\\n\t'])
def test_every_text_comes_back_from_a_configuration(text):
    """A file may be named so."""
    assert tomllib.loads(to_toml({"data": text})) == {"data": text}


def test_what_is_no_text_in_unicode_is_refused_in_a_line(refused):
    """The name of a file may be any bytes; in a configuration it would be another, or damage."""
    assert "no text in Unicode" in refused(lambda: to_toml({"data": "\udcff.svm"}))


def test_a_problem_that_is_not_split_is_read_from_the_file_of_a_comparison(tmp_path):
    """It names two splits, which have no say."""
    config = CompareConfig.read(None, {"problem": "tridiagonal", "dim": 4})
    (tmp_path / "config.toml").write_text(to_toml(config.model_dump()))
    read = ProblemConfig.read(tmp_path / "config.toml", {})
    assert (read.problem, read.dim) == ("tridiagonal", 4)
