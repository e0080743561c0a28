"""PyTorch problems: gradients, lanes, buffers, live runs that replay bit for bit."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from sklearn.datasets import load_digits

import asgrad as ag

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from asgrad.errors import AsgradWarning  # noqa: E402
from asgrad.problems import torch as torch_module  # noqa: E402
from asgrad.problems.torch import TorchProblem  # noqa: E402

LOSS = nn.functional.cross_entropy


ROWS = (np.ones((4, 2)), np.array([0, 1, 0, 1]))


class Drawing(nn.Linear):
    """Draws in its forward pass, with no layer that says so."""

    def __init__(self):
        super().__init__(2, 2)

    def forward(self, rows):
        """Dropout as a function."""
        return super().forward(nn.functional.dropout(rows, 0.5))


def frozen(part: nn.Module) -> nn.Module:
    """The same, to be trained no more."""
    return part.requires_grad_(False)


def digits() -> tuple:
    """The bundled digits as images (1797, 1, 8, 8) in float32, and their classes."""
    images, labels = load_digits(return_X_y=True)
    return torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)


def mlp() -> nn.Module:
    """A small perceptron."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def cnn() -> nn.Module:
    """A small convolutional net with BatchNorm."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 10),
    )  # fmt: skip


def rolled(images, rng):
    """Roll the images by up to a pixel."""
    return torch.roll(images, int(rng.integers(-1, 2)), dims=3)


@pytest.fixture(scope="module")
def problem():
    """The perceptron on four workers, split by label."""
    return TorchProblem(mlp(), LOSS, digits(), n_workers=4, split="label", batch=16)


def double(problem: TorchProblem) -> np.ndarray:
    """The problem's start in float64, for comparisons to the last digits."""
    return problem.x0.astype(np.float64)


def own_value(module: nn.Module, flat: np.ndarray, inputs, targets) -> tuple[float, np.ndarray]:
    """Loss and gradient by plain autograd on a module whose parameters are set."""
    module = module.double()
    nn.utils.vector_to_parameters(torch.tensor(flat), module.parameters())
    value = LOSS(module(inputs.double()), targets)
    parts = torch.autograd.grad(value, list(module.parameters()))
    return float(value.detach()), torch.cat([part.reshape(-1) for part in parts]).numpy()


def test_full_objective_is_the_mean_over_workers(problem):
    """f and ∇f against plain autograd over each worker's shard."""
    inputs, labels = digits()
    order = torch.from_numpy(np.argsort(labels.numpy(), kind="stable"))
    parts = torch.tensor_split(order, 4)
    x = double(problem) + 0.01
    own = [own_value(mlp(), x, inputs[rows], labels[rows]) for rows in parts]
    assert problem.loss(x) == pytest.approx(np.mean([value for value, _ in own]), rel=1e-12)
    mean = np.mean([g for _, g in own], axis=0)
    np.testing.assert_allclose(problem.full_gradient(x), mean, rtol=1e-9, atol=1e-14)
    right = sum(
        int((problem.module_at(x).double()(inputs[rows].double()).argmax(1) == labels[rows]).sum())
        for rows in parts
    )
    assert problem.accuracy(x) == pytest.approx(right / len(labels), abs=2 / len(labels))


def test_start_is_the_modules_own_parameters(problem):
    """x0 is flat in the order of module.parameters(), and module_at goes back."""
    flat = nn.utils.parameters_to_vector(mlp().parameters()).detach().numpy()
    np.testing.assert_array_equal(problem.x0, flat.astype(np.float64))
    assert problem.dim == 64 * 16 + 16 + 16 * 10 + 10


def test_a_stochastic_gradient_is_that_of_its_rows(problem):
    """Rows are drawn without replacement from the worker's shard by the generator given."""
    inputs, labels = digits()
    shard = torch.tensor_split(torch.from_numpy(np.argsort(labels.numpy(), kind="stable")), 4)[2]
    rows = shard[np.random.default_rng(5).choice(len(shard), 16, replace=False)]
    _, expected = own_value(mlp(), double(problem), inputs[rows], labels[rows])
    found = problem.gradient(double(problem), 2, 0, np.random.default_rng(5))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("module", [mlp, cnn])
def test_lanes_at_once_equal_lanes_one_by_one(module):
    """vmap over stepsizes gives the numbers of single runs, to rounding."""
    chosen = TorchProblem(module(), LOSS, digits(), n_workers=3, batch=32)
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=3, steps=12)
    stepsizes = [0.01, 0.05, 0.1]
    options = {"evaluations": 2, "dtype": "float64"}
    together = ag.replay(trace, chosen, stepsizes, threads=1, **options)
    assert chosen._lanes_work
    for lane, stepsize in enumerate(stepsizes):
        alone = ag.replay(trace, chosen, stepsize, **options)
        np.testing.assert_allclose(
            together.models[:, lane], alone.models[:, 0], rtol=1e-7, atol=1e-9
        )


def test_a_module_without_batching_rules_falls_back_to_single_lanes():
    """A layer that vmap cannot batch gives the very bits of single runs."""

    class Stubborn(nn.Module):
        """A linear layer that looks at its output's numbers."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(64, 10)

        def forward(self, images):
            """vmap refuses data-dependent control flow."""
            scores = self.linear(images.flatten(1))
            return scores if scores.sum().item() > -1e9 else scores * 2

    chosen = TorchProblem(Stubborn(), LOSS, digits(), n_workers=2, batch=8)
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=2, steps=6)
    together = ag.replay(trace, chosen, [0.05, 0.1], threads=1)
    alone = ag.replay(trace, chosen, 0.1)
    np.testing.assert_array_equal(together.models[:, 1], alone.models[:, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("module", [mlp, cnn])
def test_a_live_run_replays_bit_for_bit(module, dtype):
    """On the CPU, on threads, with sampling and augmentation."""
    chosen = TorchProblem(
        module(), LOSS, digits(), n_workers=3, split="label", batch=16, augment=rolled
    )
    workers = ag.Threads(slowdown=[1.0, 1.0, 3.0])
    run = ag.train(
        chosen, ag.methods.Shuffled(), 0.05, steps=60, workers=workers, dtype=dtype, seed=2
    )
    assert not run.failures
    again = ag.replay(run.trace, chosen, 0.05, dtype=dtype)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    # Small networks are evaluated at several models at once, which may round otherwise.
    assert run.loss[-1] == pytest.approx(again.loss[-1, 0], rel=1e-5)


@pytest.mark.parametrize("copier", ["copy", "pickle", "cloudpickle"])
def test_a_copy_computes_the_same_bits(copier):
    """Copied and pickled problems, before and after use, in gradients and evaluation alike."""
    module = pickle if copier == "copy" else pytest.importorskip(copier)
    inputs, labels = digits()
    chosen = TorchProblem(
        cnn(), LOSS, (inputs[:600], labels[:600]), n_workers=3, batch=16,
        augment=rolled, test=(inputs[600:], labels[600:]),
    )  # fmt: skip
    for _ in range(2):
        twin = copy.deepcopy(chosen) if copier == "copy" else module.loads(module.dumps(chosen))
        ours, theirs = (p.gradient(p.x0, 1, 4, np.random.default_rng(9)) for p in (chosen, twin))
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(chosen.full_gradient(chosen.x0), twin.full_gradient(twin.x0))
        assert chosen.accuracy(chosen.x0) == twin.accuracy(twin.x0)


def test_buffers_stay_as_they_were():
    """Neither f nor the module that was given changes by gradients and evaluations."""
    module, (images, labels) = cnn(), digits()
    chosen = TorchProblem(module, LOSS, (images[:100], labels[:100]), n_workers=2, batch=16)
    before = chosen.full_gradient(chosen.x0), chosen.accuracy(chosen.x0)
    for draw in range(3):
        chosen.gradient(chosen.x0, 0, draw, np.random.default_rng(draw))
        chosen.module_at(chosen.x0)
    np.testing.assert_array_equal(chosen.full_gradient(chosen.x0), before[0])
    assert chosen.accuracy(chosen.x0) == before[1]
    for buffer, fresh in zip(module.buffers(), cnn().buffers(), strict=True):
        assert torch.equal(buffer, fresh)


def test_a_data_set_of_pairs_is_taken():
    """Any map-style data set gives the same problem as its tensors."""
    inputs, labels = digits()
    pairs = torch.utils.data.TensorDataset(inputs[:60], labels[:60])
    one = TorchProblem(mlp(), LOSS, pairs, n_workers=3)
    two = TorchProblem(mlp(), LOSS, (inputs[:60], labels[:60]), n_workers=3)
    np.testing.assert_array_equal(one.full_gradient(one.x0), two.full_gradient(two.x0))


class Watched(nn.Module):
    """A module that notes how many rows it is given at once."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    seen: list[int] = []  # noqa: RUF012 - the problem computes with copies, which share the class

    def forward(self, images):
        """Note, and pass on."""
        self.seen.append(len(images))
        return self.module(images)


def test_an_evaluation_in_pieces_has_the_value_of_the_whole():
    """Rows that do not meet: loss, gradient and accuracy as in one piece, from small pieces."""
    inputs, labels = digits()
    rows = (inputs[:410], labels[:410])
    whole, pieces = (
        TorchProblem(
            Watched(mlp()), LOSS, rows, n_workers=3, test=(inputs[410:], labels[410:]),
            evaluation_batch=batch,
        )
        for batch in (2000, 40)
    )  # fmt: skip
    x = double(whole) + 0.01
    Watched.seen.clear()
    assert pieces.loss(x) == pytest.approx(whole.loss(x), rel=1e-12)
    pieces_of_137_137_136 = [35, 34, 34, 34] * 2 + [34] * 4
    assert Watched.seen == [*pieces_of_137_137_136, 137, 137, 136]
    np.testing.assert_allclose(
        pieces.full_gradient(x), whole.full_gradient(x), rtol=1e-9, atol=1e-14
    )
    Watched.seen.clear()
    assert pieces.accuracy(x) == pytest.approx(whole.accuracy(x), abs=1e-12)
    assert Watched.seen[:12] == pieces_of_137_137_136
    n_test = 1797 - 410
    assert Watched.seen[-4:] == [137, 137, 136, n_test]
    assert max(Watched.seen[12:-4]) <= 40
    assert sum(Watched.seen[12:-4]) == n_test


def test_pieces_with_batch_norm_are_normalised_by_themselves():
    """f_i is the mean over pieces k, k + p, ..., each its own batch, weighted by their rows."""
    inputs, labels = digits()
    chosen = TorchProblem(
        cnn(), LOSS, (inputs[:50], labels[:50]), n_workers=1, split="contiguous",
        evaluation_batch=20,
    )  # fmt: skip
    x = double(chosen)
    own = [own_value(cnn(), x, inputs[k:50:3], labels[k:50:3]) for k in range(3)]
    weights = np.array([17, 17, 16]) / 50
    assert chosen.loss(x) == pytest.approx(weights @ [v for v, _ in own], rel=1e-12)
    expected = weights @ np.array([g for _, g in own])
    np.testing.assert_allclose(chosen.full_gradient(x), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("module", [mlp, cnn])
def test_a_shard_of_one_piece_is_evaluated_as_one_batch(module):
    """The gradients with whole shards as batches average to ∇f, BatchNorm or not."""
    chosen = TorchProblem(module(), LOSS, digits(), n_workers=4)
    x = double(chosen)
    mean = np.mean([chosen.gradient(x, worker) for worker in range(4)], axis=0)
    np.testing.assert_allclose(chosen.full_gradient(x), mean, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("as_data_set", [False, True])
def test_accuracy_is_that_of_the_test_rows(as_data_set):
    """With test rows accuracy is theirs, in evaluations too; loss and gradient do not change."""
    inputs, labels = digits()
    training, test = (inputs[:900], labels[:900]), (inputs[900:1100], labels[900:1100])
    given = torch.utils.data.TensorDataset(*test) if as_data_set else test
    alone = TorchProblem(mlp(), LOSS, training, n_workers=3, batch=16)
    chosen = TorchProblem(mlp(), LOSS, training, n_workers=3, batch=16, test=given)
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=3, steps=40)
    run, without = (ag.replay(trace, p, 0.3, evaluations=2) for p in (chosen, alone))
    x = run.models[:, 0]
    with torch.no_grad():
        scores = chosen.module_at(x)(test[0])
    said = scores.argmax(dim=1)
    assert run.test_loss[-1, 0] == pytest.approx(float(LOSS(scores, test[1])), rel=1e-6)
    assert np.isnan(without.test_loss).all()
    assert chosen.accuracy(x) == float((said == test[1]).double().mean())
    assert run.accuracy[-1, 0] == chosen.accuracy(x) != without.accuracy[-1, 0]
    np.testing.assert_array_equal(x, without.models[:, 0])
    np.testing.assert_array_equal(run.loss, without.loss)
    np.testing.assert_array_equal(run.gradient_norm, without.gradient_norm)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (3, "test must be .*a data set"),
        ((np.zeros((4, 2)), np.zeros(3, int)), "test must have one target a row"),
        ((np.zeros((4, 5)), np.zeros(4, int)), r"the data's shape \(2,\), got \(5,\)"),
        ((np.zeros((4, 2)), np.zeros(4)), r"of torch\.int64, got torch\.float64"),
        (
            (np.zeros((4, 2)), np.zeros((4, 1), int)),
            r"targets of the data's shape \(\), got \(1,\)",
        ),
        ((np.full((4, 2), np.inf), np.zeros(4, int)), "inputs of test must be finite"),
    ],
)
def test_unfit_test_rows_are_refused(test, said):
    """One clear line each."""
    with pytest.raises(ag.AsgradError, match=said):
        TorchProblem(nn.Linear(2, 2), LOSS, (np.ones((4, 2)), np.zeros(4, int)), n_workers=2,
                     test=test)  # fmt: skip


def test_a_batch_that_is_larger_than_a_shard_is_said():
    """As of linear models."""
    rows = torch.zeros(7, 2), torch.zeros(7, 1)
    text = "TorchProblem: worker 1 has 3 rows, fewer than the batch of 4, and computes with all"
    with pytest.warns(AsgradWarning, match=text) as caught:
        TorchProblem(nn.Linear(2, 1), nn.MSELoss(), rows, n_workers=2, batch=4)
    assert len(caught) == 1
    TorchProblem(nn.Linear(2, 1), nn.MSELoss(), rows, n_workers=2, batch=3)


def test_equal_shards_leave_rows_out():
    """Seven rows over three workers: two each, and the seventh is none's."""
    rows = torch.arange(7.0).reshape(7, 1), torch.zeros(7, 1)
    options = {"n_workers": 3, "split": "contiguous", "equal": True}
    chosen = TorchProblem(nn.Linear(1, 1), nn.MSELoss(), rows, **options)
    assert chosen._training.inputs.flatten().tolist() == [0, 1, 3, 4, 5, 6]
    assert chosen.notes == ("1 of 7 rows are left out, for equal shards of 2 rows",)


def test_accuracy_is_not_a_number_without_classes():
    """A regression has none."""
    rows = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    chosen = TorchProblem(nn.Linear(2, 1), nn.functional.mse_loss, (rows, rows[:, :1]), n_workers=2)
    assert np.isnan(chosen.accuracy(chosen.x0))
    assert chosen.loss(chosen.x0) > 0


def test_frozen_parameters_stay():
    """x is the rest; gradients are those of a module whose frozen layer is a constant."""
    module = mlp()
    frozen(module[1])
    images, labels = digits()
    chosen = TorchProblem(module, LOSS, (images[:60], labels[:60]), n_workers=2)
    assert chosen.dim == 16 * 10 + 10
    run = ag.train(chosen, ag.methods.Pure(), 0.1, steps=20)
    trained = chosen.module_at(run.model)
    for before, after in zip(module[1].parameters(), trained[1].parameters(), strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(module[3].weight, trained[3].weight)
    again = ag.replay(run.trace, chosen, 0.1)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


def test_trying_a_module_out_leaves_torch_as_it_was():
    module = nn.Linear(2, 2)
    torch.manual_seed(3)
    expected, n_threads = torch.rand(2), torch.get_num_threads()
    torch.manual_seed(3)
    TorchProblem(module, LOSS, ROWS, n_workers=2)
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == n_threads


def test_training_learns():
    """Two hundred steps of shuffled SGD bring the perceptron above 85 % on the training data."""
    chosen = TorchProblem(mlp(), LOSS, digits(), n_workers=4, split="shuffled", batch=32)
    run = ag.train(chosen, ag.methods.Shuffled(), 0.3, steps=300, dtype="float32")
    assert run.accuracy[-1] > 0.85
    assert run.loss[-1] < run.loss[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((3, LOSS, (np.zeros((4, 2)), np.zeros(4))), "must be an nn.Module"),
        ((nn.Flatten(), LOSS, (np.zeros((4, 2)), np.zeros(4))), "no parameters that"),
        ((nn.Linear(2, 2), LOSS, (np.zeros((4, 2)), np.zeros(3))), "one target a row"),
        ((nn.Linear(2, 2), LOSS, (np.full((4, 2), np.nan), np.zeros(4))), "must be finite"),
        ((nn.Linear(2, 2), LOSS, 3), "a data set"),
        ((nn.Sequential(nn.Linear(2, 2), nn.Dropout(1e-6)), LOSS, ROWS), "as Dropout does"),
        ((Drawing(), LOSS, ROWS), "draws from a global generator"),
        ((nn.Linear(3, 2), LOSS, ROWS), "fails on rows of the data: RuntimeError: mat1"),
        ((nn.Linear(2, 2), LOSS, (np.ones((4, 2)), np.full(4, 2))), "IndexError: Target 2"),
        ((nn.Linear(2, 2), 0.5, ROWS), "loss must be a function, got 0.5"),
        ((nn.Linear(2, 2), lambda outputs, targets: outputs, ROWS), r"got one of shape \(2, 2\)"),
        ((frozen(nn.Linear(2, 2)), LOSS, ROWS), "no parameters that require a gradient"),
        ((nn.Linear(2, 2), LOSS, [(np.ones(2), 0, 0)] * 4), "must be pairs"),
        ((nn.Linear(2, 2), LOSS, {"inputs": np.ones((4, 2))}), "must be pairs"),
        ((nn.Linear(2, 2), LOSS, [(np.ones(2), 0), (np.ones(3), 1)]), "must be pairs"),
        ((nn.Linear(2, 2), LOSS, np.ones((4, 2))), "a data set"),
    ],
)  # fmt: skip
def test_what_is_no_problem_is_refused(arguments, said):
    """One clear line each."""
    with pytest.raises(ag.AsgradError, match=said):
        TorchProblem(*arguments, n_workers=2)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 3.5])
def test_a_device_that_is_not_there_is_refused(device, refused):
    """With those that are."""
    text = refused(lambda: TorchProblem(nn.Linear(2, 2), LOSS, ROWS, n_workers=2, device=device))
    assert "here it can be 'cpu'" in text


def test_with_device_auto_every_process_takes_the_best_it_has(monkeypatch):
    """Module, buffers and rows move when the problem arrives in another process."""
    module = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), frozen(nn.Linear(2, 2)))
    problem = TorchProblem(module, LOSS, ROWS, n_workers=2, test=ROWS, device="auto")
    assert problem.device.type == "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(torch_module, "_device", lambda wanted: torch.device("meta"))
    there = pickle.loads(pickle.dumps(problem))
    assert there.device.type == "meta"
    evaluation, module = there._evaluation, there._module
    rows = there._training, evaluation.training, evaluation.test
    tensors = [tensor for part in rows for tensor in (part.inputs, part.targets)]
    tensors += [*module.module.parameters(), *module.buffers.values(), *module.frozen.values()]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert evaluation.module is module
    assert list(module.buffers) == list(problem._module.buffers)
    assert list(module.frozen) == list(problem._module.frozen)
    fixed = TorchProblem.__new__(TorchProblem)
    fixed.__setstate__({**problem.__getstate__(), "_wanted": "cpu"})
    assert fixed.device.type == "cpu"  # where a device was asked for, it stays


def test_a_module_that_cannot_be_copied_is_refused_for_that(refused):
    """Each thread has its own; the device is not to blame."""
    module = nn.Linear(2, 2)
    module.lock = threading.Lock()
    text = refused(lambda: TorchProblem(module, LOSS, ROWS, n_workers=2))
    assert "can be copied: TypeError: cannot pickle '_thread.lock'" in text


def test_a_model_of_another_size_makes_no_module(refused):
    """Instead of one with some of its parameters."""
    problem = TorchProblem(nn.Linear(2, 2), LOSS, ROWS, n_workers=2)
    assert "must have shape (6,), got (5,)" in refused(lambda: problem.module_at(np.ones(5)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_gradients_agree_and_a_live_run_replays():
    """The same gradient as on the CPU to rounding; live and replayed models agree closely."""
    here = TorchProblem(mlp(), LOSS, digits(), n_workers=3, batch=16)
    there = TorchProblem(mlp(), LOSS, digits(), n_workers=3, batch=16, device="cuda")
    rng = np.random.default_rng
    own, other = (p.gradient(p.x0, 1, 0, rng(5)) for p in (here, there))
    np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-8)
    run = ag.train(there, ag.methods.Pure(), 0.1, steps=50, dtype="float32")
    again = ag.replay(run.trace, there, 0.1, dtype="float32")
    np.testing.assert_allclose(again.models[:, 0], run.model, rtol=1e-3, atol=1e-5)
