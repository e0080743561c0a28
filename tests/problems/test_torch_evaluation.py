"""What evaluations of PyTorch problems compute, from what, at what cost; whoever asks for them."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import numpy as np
import pytest

import asgrad as ag
from asgrad.training import Ending

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from asgrad.problems import torch as torch_module  # noqa: E402
from asgrad.problems.networks import digits_mlp  # noqa: E402
from asgrad.problems.torch import TorchProblem  # noqa: E402

CROSS = nn.functional.cross_entropy
F = nn.functional
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(90, 4)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0) + 2 * (INPUTS[:, 1] > 0).astype(np.int64)
ROWS, TEST = (INPUTS[:60], LABELS[:60]), (INPUTS[60:], LABELS[60:])


def net(n_outputs: int = 4, *more: nn.Module) -> nn.Module:
    """A small perceptron, with more layers in its middle."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), *more, nn.Tanh(), nn.Linear(8, n_outputs))


def trace_of(steps: int = 20) -> ag.Trace:
    """A trace on two workers."""
    return ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=2, steps=steps)


# One output a row


class Squashed(nn.Sequential):
    """One output a row, a probability; without its axis."""

    def forward(self, rows):
        return torch.sigmoid(super().forward(rows)).squeeze(1)


def as_numbers(outputs, labels):
    """A loss of a user who has integers."""
    return F.binary_cross_entropy_with_logits(outputs.squeeze(1), labels.float())


WEIGHTED = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(5.0))


@pytest.mark.parametrize(
    ("module", "loss", "shape", "threshold"),
    [
        (net(1), nn.BCEWithLogitsLoss(), (-1, 1), 0.0),
        (net(1), WEIGHTED, (-1, 1), 0.0),
        (net(1), as_numbers, None, 0.0),
        (Squashed(*net(1)), nn.BCELoss(), (-1,), 0.5),
        (net(1), nn.MSELoss(), (-1, 1), 0.5),
        (net(1), nn.SoftMarginLoss(), "signs", 0.0),
    ],
)
def test_a_classifier_of_one_output_is_right_on_either_side(module, loss, shape, threshold):
    """The share is counted by hand: above the threshold it says 1; NumPy decides."""
    labels = LABELS % 2
    if shape == "signs":
        targets = (2.0 * labels - 1).reshape(-1, 1)
    else:
        targets = labels if shape is None else labels.astype(np.float64).reshape(shape)
    rows, test = (INPUTS[:60], targets[:60]), (INPUTS[60:], targets[60:])
    for given, own in (({}, slice(60)), ({"test": test}, slice(60, 90))):
        problem = TorchProblem(module, loss, rows, n_workers=2, **given)
        result = ag.replay(trace_of(100), problem, [0.01, 0.3], evaluations=1)
        for lane in (0, 1):
            with torch.no_grad():
                trained = problem.module_at(result.models[:, lane])
                said = trained(torch.from_numpy(INPUTS[own])).numpy().reshape(-1) > threshold
            assert result.accuracy[-1, lane] == pytest.approx(np.mean(said == labels[own]))
        assert result.accuracy[-1, 1] > 0.8


@pytest.mark.parametrize("smoothing", [0.0, 0.3], ids=["one-hot", "soft"])
def test_shares_of_the_classes_name_the_class_with_the_largest(smoothing):
    """What is right is counted by hand, on training rows and on test rows, one lane and several."""
    shares = (1 - smoothing) * np.eye(4, dtype=np.float32)[LABELS] + smoothing / 4
    for given, own in (({}, slice(60)), ({"test": (INPUTS[60:], shares[60:])}, slice(60, 90))):
        problem = TorchProblem(net(), CROSS, (INPUTS[:60], shares[:60]), n_workers=2, **given)
        result = ag.replay(trace_of(100), problem, [0.01, 0.3], evaluations=1)
        for lane in (0, 1):
            model = result.models[:, lane]
            with torch.no_grad():
                said = problem.module_at(model)(torch.from_numpy(INPUTS[own])).numpy().argmax(1)
            right = np.mean(said == LABELS[own])
            assert result.accuracy[-1, lane] == pytest.approx(right, abs=1e-12)
            assert problem.accuracy(model) == result.accuracy[-1, lane]
        assert result.accuracy[-1, 1] > 0.8


@pytest.mark.parametrize(
    "targets",
    [np.eye(4, dtype=np.float32)[LABELS] * 2, INPUTS, np.eye(4, dtype=np.float32)[LABELS] - 0.001],
    ids=["sums of 2", "real", "below 0"],
)
def test_several_outputs_without_shares_have_no_accuracy(targets):
    problem = TorchProblem(net(), nn.MSELoss(), (INPUTS, targets), n_workers=2)
    assert np.isnan(problem.accuracy(problem.x0))


@pytest.mark.parametrize(
    "targets",
    [INPUTS[:60, :1], INPUTS[:60, :1].round(), np.zeros((60, 1), np.float32) + 2],
    ids=["real", "integers", "a constant"],
)
def test_a_regression_has_no_accuracy(targets):
    """Its loss it has, on test rows as well."""
    problem = TorchProblem(
        net(1), nn.MSELoss(), (INPUTS[:60], targets), n_workers=2, test=(INPUTS[:9], targets[:9])
    )
    result = ag.replay(trace_of(5), problem, 0.1, evaluations=1)
    assert np.isnan(result.accuracy).all()
    with torch.no_grad():
        outputs = problem.module_at(result.models[:, 0])(torch.from_numpy(INPUTS[:9]))
    expected = np.square(outputs.numpy() - targets[:9]).mean()
    assert result.test_loss[-1, 0] == pytest.approx(expected, rel=1e-5)


# BatchNorm and other buffers


class Averaged(nn.Module):
    """Keeps a running mean of its inputs, by assignment, and subtracts it outside of training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, rows):
        """Scores."""
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * rows.mean(dim=0)
            self.calls += 1
        return self.linear(rows - (0 if self.training else self.mean))


class Instances(nn.Sequential):
    """InstanceNorm with running statistics."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(
            nn.Unflatten(1, (1, 4)), nn.InstanceNorm1d(1, track_running_stats=True), nn.Flatten(),
            nn.Linear(4, 4),
        )  # fmt: skip


MODULES = {
    "BatchNorm": lambda: net(4, nn.BatchNorm1d(8)),
    "cumulative": lambda: net(4, nn.BatchNorm1d(8, momentum=None)),
    "InstanceNorm": Instances,
    "own": Averaged,
    "none": net,
}


@pytest.mark.parametrize("test", [None, TEST])
@pytest.mark.parametrize("name", MODULES)
def test_what_eval_predicts_is_what_the_accuracy_is_the_share_of(name, test):
    """After a run, on test rows or on training rows, live and replayed, and so is the test loss."""
    problem = TorchProblem(
        MODULES[name](), CROSS, ROWS, n_workers=2, batch=8, test=test, evaluation_batch=16
    )
    run = ag.train(problem, ag.methods.Pure(), 0.3, steps=80)
    inputs, labels = ROWS if test is None else test
    with torch.no_grad():
        scores = problem.module_at(run.model).eval()(torch.from_numpy(inputs))
    assert run.accuracy[-1] == np.mean(scores.argmax(dim=1).numpy() == labels)
    again = ag.replay(run.trace, problem, 0.3, evaluations=1)
    assert again.accuracy[-1, 0] == run.accuracy[-1]
    if test is not None:
        loss = float(CROSS(scores, torch.from_numpy(labels)))
        assert run.test_loss[-1] == pytest.approx(loss, rel=1e-5)
        assert again.test_loss[-1, 0] == pytest.approx(loss, rel=1e-5)
    assert run.accuracy[-1] > (0.5 if name == "InstanceNorm" else 0.7)


def test_running_statistics_are_the_mean_of_those_of_the_pieces():
    """Of all evaluated pieces, worker by worker, whatever the layer's momentum."""
    problem = TorchProblem(net(4, nn.BatchNorm1d(8)), CROSS, ROWS, n_workers=2, evaluation_batch=16)
    norm, weight = problem.module_at(problem.x0)[1], net()[0]
    pieces = [inputs for i in range(2) for inputs, _ in problem._training.pieces(i, 16)]
    assert [len(piece) for piece in pieces] == [15] * 4
    with torch.no_grad():
        means = torch.stack([weight(piece).mean(dim=0) for piece in pieces])
        variances = torch.stack([weight(piece).var(dim=0) for piece in pieces])
    torch.testing.assert_close(norm.running_mean, means.mean(dim=0))
    torch.testing.assert_close(norm.running_var, variances.mean(dim=0))


def test_a_layer_in_evaluation_mode_keeps_its_statistics():
    """Fine-tuning with frozen BatchNorm: they are the user's own, in gradients and afterwards."""
    module = net(4, nn.BatchNorm1d(8))
    module[1].eval().running_mean.fill_(0.25)
    problem = TorchProblem(module, CROSS, ROWS, n_workers=2)
    trained = problem.module_at(problem.x0)
    assert not trained[1].training
    assert torch.equal(trained[1].running_mean, torch.full((8,), 0.25))
    with torch.no_grad():
        loss = CROSS(module(torch.from_numpy(ROWS[0])), torch.from_numpy(ROWS[1]))
    assert problem.loss(problem.x0) == pytest.approx(float(loss), rel=1e-5)


# What is evaluated, and when


def test_a_sample_of_the_rows_is_evaluated_if_asked_for():
    """As many of every worker as it has, up to the same number; always the same ones."""
    labels = np.sort(LABELS[:60])
    problem, again, whole = (
        TorchProblem(
            net(), CROSS, (INPUTS[:60], labels), n_workers=2, split="contiguous", test=TEST,
            evaluation_rows=rows, seed=3,
        )
        for rows in (20, 20, None)
    )  # fmt: skip
    rows = problem._training.evaluated
    assert [len(part) for part in rows] == [10, 10]
    for part, other, first, end in zip(rows, again._training.evaluated, [0, 30], [30, 60],
                                       strict=True):  # fmt: skip
        assert torch.equal(part, other)
        assert len(set(part.tolist())) == 10
        assert part.min() >= first
        assert part.max() < end
    losses = CROSS(net()(torch.from_numpy(INPUTS[:60])), torch.from_numpy(labels), reduction="none")
    expected = np.mean([losses[part].mean().item() for part in rows])
    assert problem.loss(problem.x0) == pytest.approx(expected, rel=1e-5)
    assert problem.loss(problem.x0) != whole.loss(whole.x0)
    tested = problem._evaluation.test.evaluated[0]
    assert len(tested) == 20
    said = net()(torch.from_numpy(TEST[0]))[tested].argmax(dim=1).numpy()
    assert problem.accuracy(problem.x0) == np.mean(said == TEST[1][tested])
    assert len(whole._evaluation.test.evaluated[0]) == 30


def test_accuracy_of_a_sample_weighs_the_workers_by_their_rows():
    """Unequal shards, equally many rows of each: an estimate of the share over all rows."""
    problem = TorchProblem(net(), CROSS, ROWS, n_workers=2, split="dirichlet", evaluation_rows=12)
    assert np.diff(problem._training.bounds).tolist() != [30, 30]
    rows = problem._training
    shares = []
    for part in rows.evaluated:
        said = net()(rows.inputs[part]).argmax(dim=1)
        shares.append(float((said == rows.targets[part]).double().mean()))
    expected = np.average(shares, weights=np.diff(rows.bounds))
    assert problem.accuracy(problem.x0) == pytest.approx(expected, abs=1e-12)


def test_the_gradient_norm_is_computed_only_if_asked_for():
    """Loss, accuracy and models are the same; ‖∇f‖ is NaN or the norm of the full gradient."""
    trace = trace_of()
    without, with_norm = (
        TorchProblem(net(), CROSS, ROWS, n_workers=2, gradient_norm=wanted)
        for wanted in (False, True)
    )
    one, other = (ag.replay(trace, p, [0.1, 0.2], evaluations=3) for p in (without, with_norm))
    assert one.status == other.status == ["finished", "finished"]
    assert np.isnan(one.gradient_norm).all()
    np.testing.assert_array_equal(one.models, other.models)
    np.testing.assert_array_equal(one.accuracy, other.accuracy)
    np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
    norms = [np.linalg.norm(without.full_gradient(other.models[:, lane])) for lane in (0, 1)]
    np.testing.assert_allclose(other.gradient_norm[-1], norms, rtol=1e-5)
    assert (without.measure, ag.problems.Tridiagonal(4).measure) == ("loss", "gradient_norm")


def squares(outputs, targets):
    """A loss that a large stepsize blows up without end."""
    return (outputs - targets).square().mean()


def linear(gradient_norm: bool = False) -> TorchProblem:
    """Least squares on one linear layer."""
    torch.manual_seed(0)
    data = INPUTS[:60].astype(np.float64), INPUTS[:60, :1].astype(np.float64)
    module = nn.Linear(4, 1).double()
    return TorchProblem(module, squares, data, n_workers=2, gradient_norm=gradient_norm)


def test_a_run_without_gradient_norms_diverges_by_its_loss():
    """In replay, lane by lane, and in a live run, as with ‖∇f‖."""
    for wanted in (False, True):
        result = ag.replay(trace_of(200), linear(wanted), [1e3, 0.05], evaluations=100)
        assert result.status == ["diverged", "finished"]
        last = np.flatnonzero(np.isfinite(result.loss[:, 0]))[-1]
        assert np.isnan(result.loss[last + 1 :, 0]).all()
        assert 0 < last < 100
        run = ag.train(linear(wanted), ag.methods.Pure(), 10.0, steps=100, evaluate_every=1e-3)
        assert run.status == Ending.DIVERGED


def test_a_target_needs_gradient_norms(refused):
    """A run that waits for what nobody computes would never end."""
    text = refused(lambda: ag.train(linear(), ag.methods.Pure(), 0.1, target=0.1))
    assert "gradient_norm=True" in text
    text = refused(
        lambda: ag.train(linear(True), ag.methods.Pure(), 0.1, target=0.1, evaluate_every=None)
    )
    assert "evaluate_every None" in text
    run = ag.train(linear(True), ag.methods.Pure(), 0.2, target=0.1, evaluate_every=1e-3)
    assert run.status == Ending.TARGET


def test_a_run_may_go_on_with_gradient_norms(tmp_path):
    """Those of its beginning are NaN; that is no divergence, and f at the start is compared."""
    pytest.importorskip("safetensors")
    options = {"checkpoints": ag.Checkpoints(tmp_path), "evaluate_every": 1e-3}
    ag.train(linear(), ag.methods.Pure(), 0.2, steps=5, **options)
    run = ag.train(linear(True), ag.methods.Pure(), 0.2, target=0.1, resume=True, **options)
    assert run.status == Ending.TARGET
    assert np.isnan(run.gradient_norm[0])
    assert np.nanmin(run.gradient_norm) <= 0.1  # by the end the model has moved on


class Watched(nn.Module):
    """A module that notes how many rows it is given at once."""

    def __init__(self):
        super().__init__()
        self.module = net()

    seen: list[int] = []  # noqa: RUF012 - the problem computes with copies, which share the class

    def forward(self, rows):
        """Note, and pass on."""
        self.seen.append(len(rows))
        return self.module(rows)


def test_nothing_is_evaluated_if_asked_for():
    """No row goes through the module but those of the gradients; the models are the same."""
    problem = TorchProblem(Watched(), CROSS, ROWS, n_workers=2, batch=7, test=TEST)
    trace, evaluated = trace_of(), ag.replay(trace_of(), problem, [0.1, 0.2], evaluations=2)
    Watched.seen.clear()
    told: list[float] = []
    result = ag.replay(trace, problem, [0.1, 0.2], evaluations=0, progress=told.append)
    assert set(Watched.seen) == {7}
    assert result.steps.size == result.times.size == result.gradients.size == 0
    assert result.loss.shape == result.gradient_norm.shape == (0, 2)
    assert result.accuracy.shape == result.test_loss.shape == (0, 2)
    assert result.status == ["finished", "finished"]
    assert sum(told) == pytest.approx(1.0)
    np.testing.assert_array_equal(result.models, evaluated.models)
    Watched.seen.clear()
    run = ag.train(problem, ag.methods.Pure(), 0.1, steps=20, evaluate_every=None)
    assert set(Watched.seen) == {7}
    assert run.status == Ending.STEPS
    assert run.steps.size == run.loss.size == run.gradient_norm.size == run.accuracy.size == 0
    again = ag.replay(run.trace, problem, 0.1, evaluations=0)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


def test_without_evaluations_a_lane_has_diverged_if_its_model_is_not_finite():
    """Nothing else is looked at."""
    result = ag.replay(trace_of(1000), linear(), [1e3, 0.05], evaluations=0)
    assert result.status == ["diverged", "finished"]
    assert not np.isfinite(result.models[:, 0]).all()


def test_models_are_evaluated_together_as_far_as_memory_is_bounded(monkeypatch):
    """Rows times models times bytes a row stay within the bound, down to a model at a time."""
    problem = TorchProblem(Watched(), CROSS, ROWS, n_workers=2, batch=5, evaluation_batch=10)
    assert not problem.gains_by_threads
    x = problem.x0[:, None] + np.arange(7, dtype=np.float32) / 100
    for models, calls in ((7, 1), (3, 3), (1, 7), (0.01, 7)):
        monkeypatch.setattr(torch_module, "_MEMORY", int(models * 10 * problem._row_bytes))
        metrics, out = np.full((4, 7), np.nan), np.empty_like(x)
        Watched.seen.clear()
        evaluate = problem.kernels().evaluation
        evaluate(*problem.pack("float32"), x, metrics, out, np.zeros(1), np.zeros(1))
        assert Watched.seen == [10] * 6 * calls
        alone = [problem.loss(column) for column in np.ascontiguousarray(x.T)]
        np.testing.assert_allclose(metrics[0], alone, rtol=1e-6)
    trace = trace_of(3)
    monkeypatch.setattr(torch_module, "_MEMORY", 2 * 5 * problem._row_bytes)
    Watched.seen.clear()
    ag.replay(trace, problem, [0.1] * 6, evaluations=0, threads=1)
    assert Watched.seen == [5] * 3 * 3  # gradients likewise: six lanes, two at a time


@pytest.mark.parametrize(("rows", "piece"), [(40, 40), (5, 16), (9_000, 500)])
def test_pieces_are_as_large_as_memory_and_batch_allow(monkeypatch, rows, piece):
    """At most 500 rows, at least those of a stochastic gradient."""
    width = TorchProblem(net(), CROSS, ROWS, n_workers=2)._row_bytes
    floats_of_a_row = 8 + 4 + 4  # hidden values and scores, and their softmax
    assert width >= 4 * floats_of_a_row
    monkeypatch.setattr(torch_module, "_MEMORY", rows * width)
    problem = TorchProblem(net(), CROSS, ROWS, n_workers=2, batch=16)
    assert problem._evaluation.piece == piece


# Whoever calls


def wide() -> TorchProblem:
    """A problem whose gradients have other bits on two torch threads than on one."""
    torch.manual_seed(0)
    rows = torch.randn(2000, 300), torch.randint(0, 10, (2000,))
    module = nn.Sequential(nn.Linear(300, 400), nn.ReLU(), nn.Linear(400, 10))
    return TorchProblem(module, CROSS, rows, n_workers=2, batch=1000, evaluation_rows=10)


def n_threads_of_a_new_thread() -> int:
    """How many torch threads a thread would compute with that begins now."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.fixture
def torch_threads():
    """Give back how many threads torch computes with."""
    n_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(n_threads)


def test_bits_do_not_depend_on_what_the_caller_has_set(torch_threads):
    """Torch threads, autograd, autocast: live and replayed, and all is given back."""
    problem = wide()
    run = ag.train(problem, ag.methods.Pure(), 0.05, steps=3, evaluate_every=None)
    for n_threads in (1, 2, 3):
        torch.set_num_threads(n_threads)
        again = ag.replay(run.trace, problem, 0.05, evaluations=1, threads=1)
        np.testing.assert_array_equal(again.models[:, 0], run.model)
        problem.module_at(problem.x0)
        assert torch.get_num_threads() == n_threads_of_a_new_thread() == n_threads
        run = ag.train(problem, ag.methods.Pure(), 0.05, steps=3)
        assert torch.get_num_threads() == n_threads_of_a_new_thread() == n_threads
    settings = [
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", dtype=torch.bfloat16),
        nullcontext(),
    ]
    models = []
    slope = problem.full_gradient(problem.x0)
    for setting in settings:
        with setting:
            models.append(ag.replay(run.trace, problem, 0.05, evaluations=1).models)
            np.testing.assert_array_equal(problem.full_gradient(problem.x0), slope)
    for model in models:
        np.testing.assert_array_equal(model[:, 0], run.model)


# What goes wrong on the way


class Picky(nn.Module):
    """Fails on the row that holds a 7, if there are few rows."""

    def __init__(self, kind):
        super().__init__()
        self.linear, self.kind = nn.Linear(4, 4), kind

    def forward(self, rows):
        if len(rows) == 3 and (rows == 7).any():
            raise self.kind("no sevens")
        return self.linear(rows)


def augment(rows, rng):
    """Fails like a user's own transform, on the same row."""
    if (rows == 7).any():
        raise KeyError("no sevens")
    return rows


def picky_loss(outputs, targets):
    """Fails on a label that few rows have."""
    if len(targets) == 3 and (targets == 3).any():
        raise ZeroDivisionError("no threes")
    return CROSS(outputs, targets)


@pytest.mark.parametrize(
    ("module", "loss", "options", "said"),
    [
        (lambda: Picky(ValueError), CROSS, {}, "ValueError: no sevens"),
        (lambda: Picky(RuntimeError), CROSS, {}, "RuntimeError: no sevens"),
        (net, picky_loss, {}, "ZeroDivisionError: no threes"),
        (net, CROSS, {"augment": augment}, "KeyError: 'no sevens'"),
    ],
)
def test_what_fails_in_the_middle_of_a_run_names_worker_and_draw(
    module, loss, options, said, refused
):
    """In a replay of one lane or several it ends it; in a live run the job is lost."""
    inputs = INPUTS[:60].copy()
    inputs[LABELS[:60] == 3, 0] = 7
    # Whole by worker 0's first eight rows, which a new problem is tried out on.
    order = np.argsort(LABELS[:60], kind="stable")
    rows = inputs[order], LABELS[:60][order]
    problem = TorchProblem(
        module(), loss, rows, n_workers=2, split="contiguous", batch=3, **options
    )
    where = "worker 1, draw"
    for stepsizes in (0.1, [0.1, 0.2]):
        text = refused(
            lambda stepsizes=stepsizes: ag.replay(trace_of(60), problem, stepsizes, threads=1)
        )
        assert f"the gradient of {where}" in text
        assert text.endswith(f"failed: {said}")
    run = ag.train(problem, ag.methods.Pure(), 0.1, steps=60)
    assert run.failures
    assert all(failure.startswith(where) for failure in run.failures)
    assert all(failure.endswith(f": {said}") for failure in run.failures)


def test_a_problem_may_say_its_dtype_as_torch_does():
    """A plain problem that computes with torch."""
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    problem.dtype = torch.float32
    assert ag.replay(trace_of(3), problem, 0.1).models.dtype == np.float32


def test_an_evaluation_that_fails_says_so(refused):
    """The test rows are not tried out."""
    labels = TEST[1].copy()
    labels[3] = 9
    problem = TorchProblem(net(), CROSS, ROWS, n_workers=2, test=(TEST[0], labels))
    text = refused(lambda: ag.replay(trace_of(3), problem, 0.1))
    assert "an evaluation failed: IndexError: Target 9" in text


def test_networks_take_the_options_of_evaluations(refused):
    """They are handed on."""
    problem = digits_mlp(2, evaluation_rows=50, evaluation_batch=20, gradient_norm=True)
    assert [len(rows) for rows in problem._training.evaluated] == [25, 25]
    assert problem._evaluation.piece == 20
    assert problem.evaluates_gradient
    assert problem.dtype == "float32"
    for option in ("evaluation_rows", "evaluation_batch"):
        text = refused(lambda option=option: digits_mlp(2, **{option: 0}))
        assert f"{option} must be an integer >= 1, got 0" in text
    assert "gradient_norm must be true or false" in refused(
        lambda: digits_mlp(2, gradient_norm="yes")
    )
