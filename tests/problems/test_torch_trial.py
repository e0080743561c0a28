"""What is found out of a PyTorch module, its loss and its data when a problem is built."""

from __future__ import annotations

import random
import re
import warnings

import numpy as np
import pytest

import asgrad as ag

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from asgrad.problems.torch import TorchProblem  # noqa: E402

CROSS = nn.functional.cross_entropy
N_ROWS = 24
INPUTS = torch.randn(N_ROWS, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N_ROWS) % 3
VALUES = INPUTS.sum(dim=1, keepdim=True)
CLASSES, REGRESSION = (INPUTS, LABELS), (INPUTS, VALUES)


def net(n_outputs: int = 3, *more: nn.Module) -> nn.Module:
    """A small perceptron, with more layers in its middle."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), *more, nn.Tanh(), nn.Linear(8, n_outputs))


class Says(nn.Module):
    """A linear layer whose outputs are put into some other object."""

    def __init__(self, made):
        super().__init__()
        self.linear, self.made = nn.Linear(4, 3), made

    def forward(self, rows):
        """Return what `made` makes of the scores."""
        return self.made(self.linear(rows))


def with_regulariser(module: nn.Module):
    """A loss that reaches into the module that was given, where a copy of it is trained."""

    def loss(outputs, targets):
        return CROSS(outputs, targets) + sum(p.square().sum() for p in module.parameters())

    return module, loss


def contrastive(outputs, targets):
    """A mean over the rows of a loss that grows with their number."""
    return CROSS(outputs @ outputs.T, torch.arange(len(outputs)))


class Rotated(nn.Module):
    """A module with complex parameters."""

    def __init__(self):
        super().__init__()
        self.turn = nn.Parameter(torch.ones(4, 3, dtype=torch.complex64))

    def forward(self, rows):
        """Absolute values as scores."""
        return (rows.to(torch.complex64) @ self.turn).abs()


def lazy() -> nn.Module:
    """A layer that has no size yet; torch warns of those."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.LazyLinear(3)


def mixed() -> nn.Module:
    """A module of two precisions."""
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3).double())


@pytest.mark.parametrize(
    ("module", "loss", "data", "said"),
    [
        (net(), nn.CrossEntropyLoss(reduction="sum"), CLASSES, "must be a mean over the rows"),
        (net(1), lambda o, t: (o - t).square().sum() / 32, REGRESSION, "for the same rows twice"),
        (net(), contrastive, CLASSES, "must be a mean over the rows"),
        (net(1), nn.MSELoss(), (INPUTS, VALUES[:, 0]), r"shape \(8, 1\) for this loss, got \(8,\)"),
        (*with_regulariser(net()), CLASSES, "through the module's outputs alone"),
        (net(), lambda o, t: CROSS(o.detach(), t), CLASSES, "without a gradient; is it detached?"),
        (net(), lambda o, t: CROSS(o, t).item(), CLASSES, "without dimensions, .* got float"),
        (net(), lambda o, t: CROSS(o, t, reduction="none"), CLASSES, r"got one of shape \(8,\)"),
        (net(), lambda o, t: (o.argmax(1) == t).sum(), CLASSES, "got one of torch.int64"),
        (Says(lambda o: {"logits": o}), lambda o, t: CROSS(o["logits"], t), CLASSES, "got dict"),
        (Says(lambda o: (o, o)), lambda o, t: CROSS(o[0], t), CLASSES, "a tensor, got tuple"),
        (net().half(), CROSS, CLASSES, r"got float16; .* module.float\(\)"),
        (Rotated(), CROSS, CLASSES, "got complex64"),
        (mixed(), CROSS, CLASSES, "got float32 and float64"),
        (lazy(), CROSS, CLASSES, "call it once on some inputs"),
        (net(), CROSS, ((INPUTS, INPUTS), LABELS), "the inputs of data must be one tensor"),
        (net(), CROSS, ({"rows": INPUTS}, LABELS), "the inputs of data must be one tensor"),
        (net(), CROSS, (INPUTS, list("abc" * 8)), "the targets of data must be one tensor"),
        (net(1), CROSS, (INPUTS, VALUES * np.nan), "targets of data must be finite"),
        (net(), CROSS, (torch.tensor(1.0), LABELS), "got no rows of inputs and 24 targets"),
        (net(3, nn.BatchNorm1d(8)), CROSS, (INPUTS[:5], LABELS[:5]), "more than 1 value per"),
    ],
)
def test_what_would_go_wrong_in_a_run_is_refused_before(module, loss, data, said, refused):
    """In one line that says what to do."""
    assert re.search(said, refused(lambda: TorchProblem(module, loss, data, n_workers=3)))


def train_part(module: nn.Module, part: int) -> nn.Module:
    """The module in evaluation mode, but for one part."""
    module.eval()[part].train()
    return module


class Tied(nn.Module):
    """A table of words that is read in both directions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.scores = nn.Embedding(5, 6), nn.Linear(6, 5, bias=False)
        self.scores.weight = self.words.weight
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, words):
        """Mean of the words' vectors plus something made in the default dtype, then scores."""
        self.calls += 1
        return self.scores(self.words(words).mean(dim=1) + torch.zeros(6))


WORDS = torch.arange(N_ROWS * 3).reshape(N_ROWS, 3) % 5
DOUBLES = (INPUTS.double().numpy(), VALUES.double().numpy())


def as_is(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What a user would convert by hand."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


@pytest.mark.parametrize(
    ("module", "loss", "data"),
    [
        (net(3, nn.Dropout(0.0)), CROSS, CLASSES),
        (net(3, nn.Dropout(0.5)).eval(), CROSS, CLASSES),
        (train_part(net(3, nn.Dropout(0.5), nn.BatchNorm1d(8)), 2), CROSS, CLASSES),
        (net(3, nn.BatchNorm1d(8)), nn.CrossEntropyLoss(torch.tensor([1.0, 9.0, 2.0])), CLASSES),
        (net(1), nn.HuberLoss(), DOUBLES),
        (net(1), nn.SmoothL1Loss(), DOUBLES),
        (Tied(), CROSS, (WORDS, WORDS[:, 0])),
        (Tied(), CROSS, (WORDS.numpy(), WORDS[:, 0].numpy())),
        (net().double(), CROSS, CLASSES),
    ],
)  # fmt: skip
def test_what_is_well_defined_is_taken(module, loss, data):
    """Computed as the module computes by itself: f, its slope, and a live run's replay."""
    modes = [part.training for part in module.modules()]
    problem = TorchProblem(module, loss, data, n_workers=2, evaluation_batch=N_ROWS)
    trained = problem.module_at(problem.x0)
    assert [part.training for part in trained.modules()] == modes
    dtype = next(module.parameters()).dtype
    assert problem.dtype == str(dtype).removeprefix("torch.")
    shards = [[as_is(part, dtype) for part in problem._training.shard(i)] for i in range(2)]
    value = sum(loss(module(inputs), targets) for inputs, targets in shards) / 2
    assert problem.loss(problem.x0) == pytest.approx(float(value.detach()), rel=1e-5)
    slope = torch.autograd.grad(value, list(module.parameters()))
    flat = torch.cat([part.reshape(-1) for part in slope]).numpy()
    np.testing.assert_allclose(problem.full_gradient(problem.x0), flat, rtol=1e-3, atol=1e-5)
    run = ag.train(problem, ag.methods.Pure(), 0.05, steps=6, evaluate_every=None)
    assert not run.failures
    assert run.model.dtype == problem.dtype
    again = ag.replay(run.trace, problem, 0.05, evaluations=0)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


def test_rows_are_dealt_out_by_targets_of_any_shape_with_one_number_a_row(refused):
    """One column is as good as none; of several numbers a row none is a label."""
    loss, signs = nn.BCEWithLogitsLoss(), (LABELS % 2).double()
    for targets, module in (
        (signs[:, None], net(1)),
        (signs, nn.Sequential(net(1), nn.Flatten(0))),
    ):
        problem = TorchProblem(module, loss, (INPUTS, targets), n_workers=2, split="label")
        first, second = (problem._training.shard(i)[1].flatten().tolist() for i in (0, 1))
        assert first + second == sorted(signs.tolist())
    several = (INPUTS, torch.stack([signs, signs], dim=1))
    for split in ("label", "dirichlet"):
        text = refused(
            lambda split=split: TorchProblem(net(2), loss, several, n_workers=2, split=split)
        )
        assert "got targets of shape (24, 2)" in text
    TorchProblem(net(2), loss, several, n_workers=2, split="shuffled")


def test_a_read_only_array_is_taken_without_a_word():
    """torch warns of those; here warnings are errors."""
    inputs, targets = INPUTS.numpy().copy(), VALUES.numpy().copy()
    inputs.flags.writeable = targets.flags.writeable = False
    TorchProblem(net(1), nn.functional.mse_loss, (inputs, targets), n_workers=2)


def test_a_dtype_in_which_the_module_cannot_compute_is_refused(refused):
    """It is asked for at the start of a run; the module's own does."""

    class Recurrent(nn.Module):
        """Begins with a state in the default dtype."""

        def __init__(self):
            super().__init__()
            self.cell, self.scores = nn.GRUCell(4, 8), nn.Linear(8, 3)

        def forward(self, rows):
            return self.scores(self.cell(rows, torch.zeros(len(rows), 8)))

    problem = TorchProblem(Recurrent(), CROSS, CLASSES, n_workers=2)
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=2, steps=3)
    assert np.isfinite(ag.replay(trace, problem, 0.1).loss).all()
    for run in (
        lambda: ag.replay(trace, problem, 0.1, dtype="float64"),
        lambda: ag.train(problem, ag.methods.Pure(), 0.1, steps=3, dtype="float64"),
    ):
        text = refused(run)
        assert "must compute in float64" in text
        assert "its own is float32" in text


class Items:
    """A data set of pairs whose inputs some function changes when they are read."""

    def __init__(self, change):
        self.change = change

    def __len__(self):
        return N_ROWS

    def __getitem__(self, i):
        return self.change(INPUTS[i]), int(LABELS[i])


DRAWS = {
    "torch": lambda row: row + torch.randn(4),
    "numpy": lambda row: row * np.random.choice([1.0, -1.0]),  # noqa: NPY002
    "python": lambda row: row.flip(0) if random.random() < 0.5 else row,
}


@pytest.mark.parametrize("draw", DRAWS)
def test_items_that_are_drawn_at_random_are_refused(draw, refused):
    """One reading would freeze them for all epochs; augment is the remedy."""
    text = refused(lambda: TorchProblem(net(), CROSS, Items(DRAWS[draw]), n_workers=2))
    assert "must be the same whenever it is read" in text
    assert "augment=" in text


@pytest.mark.parametrize("draw", [*DRAWS, "a module", "nothing"])
def test_building_a_problem_leaves_the_global_generators_alone(draw):
    """Whatever its items or its module draw from, and however it ends."""
    module = net(3, nn.Dropout(0.5)) if draw == "a module" else net()
    states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    try:
        TorchProblem(module, CROSS, Items(DRAWS.get(draw, lambda row: row)), n_workers=2)
    except ag.AsgradError:
        assert draw != "nothing"
    assert torch.equal(states[0], torch.get_rng_state())
    assert str(np.random.get_state()) == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]


def augmented(rows, rng):
    """An augmentation that draws a number it should not, and hardly uses it."""
    random.random()
    return rows


def test_an_augmentation_that_draws_from_a_global_generator_is_refused(refused):
    """Even where two gradients happen to agree."""
    text = refused(
        lambda: TorchProblem(net(), CROSS, CLASSES, n_workers=2, batch=4, augment=augmented)
    )
    assert "draws from a global generator" in text


def test_what_vmap_takes_one_by_one_is_not_batched():
    """torch would warn of every one in the middle of a replay; here warnings are errors."""

    class Slow(torch.autograd.Function):
        """Twice its input, with no rule for several at once."""

        generate_vmap_rule = False

        @staticmethod
        def forward(ctx, rows):
            return rows * 2

        @staticmethod
        def backward(ctx, slope):
            return slope * 2

    class Doubled(nn.Module):
        """A layer between two linear ones."""

        def forward(self, rows):
            return Slow.apply(rows)

    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=2, steps=4)
    margin = nn.functional.multi_margin_loss  # vmap takes it row by row, with a warning
    for module, loss in ((net(3, Doubled()), CROSS), (net(), margin)):
        problem = TorchProblem(module, loss, CLASSES, n_workers=2, batch=4)
        assert not problem._lanes_work
        together = ag.replay(trace, problem, [0.1, 0.2], threads=1)
        alone = ag.replay(trace, problem, 0.2)
        np.testing.assert_array_equal(together.models[:, 1], alone.models[:, 0])
