"""Ready networks: sizes from their layers, fixed splits and starts, CIFAR-10's binary form."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from sklearn.datasets import load_digits

import asgrad as ag

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from asgrad.problems import networks  # noqa: E402

FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """As problems compute; on a busy machine two wait for each other."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


def written(folder, n_training=6, n_test=7):
    """Write six small files of random images; return the records by file."""
    rng = np.random.default_rng(4)
    records = {}
    for name in FILES:
        n_records = n_test if name == "test_batch.bin" else n_training
        records[name] = rng.integers(0, 256, (n_records, 3073), dtype=np.uint8)
        records[name][:, 0] = rng.integers(0, 10, n_records)
        records[name].tofile(folder / name)
    return records


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """A folder in CIFAR-10's binary form, and its records."""
    folder = tmp_path_factory.mktemp("cifar-10-batches-bin")
    return folder, written(folder)


@pytest.mark.parametrize("make", [networks.digits_mlp, networks.digits_cnn])
def test_digits_are_split_once_and_for_all(make):
    """Every fifth row is a test row; neither half depends on the seed."""
    images, labels = load_digits(return_X_y=True)
    chosen = make(3, split="contiguous", seed=5)
    rows = np.arange(len(labels))
    x = chosen.x0
    with torch.no_grad():
        pixels = torch.tensor(images / 16, dtype=torch.float32).view(
            -1, *chosen._training.inputs.shape[1:]
        )
        scores = chosen.module_at(x)(pixels)
    right = scores.argmax(dim=1).numpy() == labels
    assert chosen.accuracy(x) == pytest.approx(right[rows % 5 == 0].mean(), abs=1e-12)
    losses = nn.functional.cross_entropy(scores, torch.tensor(labels), reduction="none").numpy()
    shards = np.array_split(losses[rows % 5 != 0], 3)
    assert chosen.loss(x) == pytest.approx(np.mean([s.mean() for s in shards]), rel=1e-6)


@pytest.mark.parametrize("make", [networks.digits_mlp, networks.digits_cnn])
def test_digits_may_be_tested_on_other_rows(make, refused):
    """A share is drawn as that of linear models is; rows that are given are taken as they are."""
    images, labels = load_digits(return_X_y=True)
    shared = make(3, test=0.25, seed=7)
    linear = ag.problems.Softmax("digits", n_workers=3, test=0.25, seed=7)
    test = shared._evaluation.test
    np.testing.assert_array_equal(test.targets.numpy(), linear.test_targets)
    found = test.inputs.flatten(1).numpy()
    np.testing.assert_allclose(found, linear.test_features.toarray(), rtol=1e-6)
    assert shared.notes == ("449 of 1797 rows, drawn at random, are for testing",)
    given = make(3, test=(images[:9] / 16, labels[:9].astype(float)), equal=True)
    np.testing.assert_array_equal(given._evaluation.test.targets.numpy(), labels[:9])
    assert given._training.bounds.tolist() == [0, 599, 1198, 1797]
    text = refused(lambda: make(3, test=(images[:2] / 16, np.array([3.0, 10.0]))))
    assert text == f"{make.__name__}: labels of test rows must be 0 to 9, got 10."


def test_numbers_of_parameters_follow_from_the_layers(cifar10):
    """Weights and biases, layer by layer."""
    assert networks.digits_mlp(2).dim == (64 + 1) * 32 + (32 + 1) * 10
    assert networks.digits_mlp(2, hidden=7).dim == (64 + 1) * 7 + (7 + 1) * 10
    assert networks.digits_cnn(2).dim == (9 + 1) * 16 + (9 * 16 + 1) * 32 + (2 * 2 * 32 + 1) * 10
    widths = [3] + 7 * [16] + 6 * [32] + 6 * [64]  # what goes into and comes out of 19 convolutions
    convolutions = sum(9 * a * b for a, b in pairwise(widths))
    batch_norms = 2 * sum(widths[1:])
    resnet = networks.cifar10_resnet20(cifar10[0], 2, batch=None)
    assert resnet.dim == convolutions + batch_norms + (64 + 1) * 10 == 269_722


@pytest.mark.parametrize("make", [networks.digits_mlp, networks.digits_cnn])
def test_a_start_follows_from_the_seed_alone(make):
    """Equal seeds give equal starts, whatever torch drew before; torch's generator stays put."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = make(2, seed=3).x0
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    np.testing.assert_array_equal(make(2, seed=3).x0, first)
    assert not np.array_equal(make(2, seed=4).x0, first)


@pytest.mark.parametrize("make", [networks.digits_mlp, networks.digits_cnn])
def test_training_on_digits_generalizes(make):
    """Three hundred steps bring both networks to nine right answers in ten on the test rows."""
    trace = ag.simulate(ag.methods.Shuffled(), ag.times.Linear(), n_workers=4, steps=300)
    run = ag.replay(trace, make(4), 0.3, evaluations=1)
    assert run.accuracy[0, 0] < 0.3
    assert run.accuracy[-1, 0] > 0.9


def test_cifar10_is_read_as_it_is_published(cifar10):
    """Training files in their order, planes red, green, blue, row by row; the test file apart."""
    folder, records = cifar10
    chosen = networks.cifar10_resnet20(folder, 1, split="contiguous", batch=None)
    training = np.concatenate([records[name] for name in FILES[:5]])
    assert chosen._training.inputs.shape == (30, 3, 32, 32)
    np.testing.assert_array_equal(chosen._training.targets.numpy(), training[:, 0])
    record, channel, row, column = 17, 1, 5, 20
    pixel = training[record, 1 + channel * 1024 + row * 32 + column]
    assert chosen._training.inputs[record, channel, row, column] == pixel
    test = chosen._evaluation.test
    images, labels = test.inputs, test.targets
    np.testing.assert_array_equal(labels.numpy(), records["test_batch.bin"][:, 0])
    np.testing.assert_array_equal(images.flatten(1).numpy(), records["test_batch.bin"][:, 1:])


def plain_resnet20(flat: torch.Tensor, images: torch.Tensor, learned=None, kept=None):
    """Section 4.2 of the paper in one function: the parameters in order, nothing else.

    Means and variances of every layer are those of the batch, and noted in `learned`; or `kept`.
    """
    place = 0
    learned = [] if learned is None else learned
    kept = iter(kept or [])

    def take(*shape: int) -> torch.Tensor:
        nonlocal place
        place += int(np.prod(shape))
        return flat[place - int(np.prod(shape)) : place].view(shape)

    def normalized(values):
        mean = values.mean(dim=(0, 2, 3), keepdim=True)
        variance = (values - mean).square().mean(dim=(0, 2, 3), keepdim=True)
        n = values.numel() / values.shape[1]
        learned.append((mean.detach(), variance.detach() * n / (n - 1)))
        mean, variance = next(kept, (mean, variance))
        scale, shift = take(values.shape[1]), take(values.shape[1])
        return (values - mean) / (variance + 1e-5).sqrt() * scale[:, None, None] + (
            shift[:, None, None]
        )

    def convolved(values, n_out, stride):
        kernel = take(n_out, values.shape[1], 3, 3)
        return normalized(nn.functional.conv2d(values, kernel, stride=stride, padding=1))

    mean = 255 * torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)  # in float32, as buffers are
    deviation = 255 * torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
    pixels = (images.to(flat.dtype) - mean.to(flat.dtype)) / deviation.to(flat.dtype)
    values = convolved(pixels, 16, 1).clamp(min=0)
    for n_channels, halves in ((16, False), (32, True), (64, True)):
        for block in range(3):
            stride = 2 if halves and block == 0 else 1
            inner = convolved(values, n_channels, stride).clamp(min=0)
            inner = convolved(inner, n_channels, 1)
            shortcut = torch.zeros_like(inner)
            shortcut[:, : values.shape[1]] = values[:, :, ::stride, ::stride]
            values = (inner + shortcut).clamp(min=0)
    weights, bias = take(10, 64), take(10)
    assert place == flat.numel()
    return values.mean(dim=(2, 3)) @ weights.T + bias


def test_resnet20_is_the_network_of_the_paper(cifar10):
    """f, ∇f and accuracy against the plain function, BatchNorm over each worker's rows."""
    chosen = networks.cifar10_resnet20(cifar10[0], 2, split="contiguous", batch=None, seed=1)
    flat = torch.tensor(chosen.x0, dtype=torch.float64).requires_grad_()
    value, learned = 0, ([], [])
    training, test = chosen._training, chosen._evaluation.test
    for rows, notes in zip((slice(0, 15), slice(15, 30)), learned, strict=True):
        scores = plain_resnet20(flat, training.inputs[rows], notes)
        value = value + nn.functional.cross_entropy(scores, training.targets[rows]) / 2
    value.backward()
    x = flat.detach().numpy()
    assert chosen.loss(x) == pytest.approx(float(value.detach()), rel=1e-9)
    np.testing.assert_allclose(chosen.full_gradient(x), flat.grad, rtol=1e-6, atol=1e-9)
    kept = [((m + n) / 2, (v + w) / 2) for (m, v), (n, w) in zip(*learned, strict=True)]
    said = plain_resnet20(flat.detach(), test.inputs, kept=kept)
    assert chosen.accuracy(x) == float((said.argmax(dim=1) == test.targets).double().mean())
    with torch.no_grad():
        own = chosen.module_at(x).double().eval()(test.inputs)
    np.testing.assert_allclose(own, said, rtol=1e-4, atol=1e-5)  # statistics pass through float32


def test_augmentation_crops_and_mirrors_each_image_by_itself():
    """Against a loop over the images with the same numbers of the generator."""
    images = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    )
    found = networks._crop_and_flip(images, np.random.default_rng(7)).numpy()
    rng = np.random.default_rng(7)
    top, left = rng.integers(0, 9, (2, 40))
    mirrored = rng.integers(0, 2, 40)
    for i, image in enumerate(images.numpy()):
        padded = np.zeros((3, 40, 40), np.uint8)
        padded[:, 4:36, 4:36] = image
        crop = padded[:, top[i] : top[i] + 32, left[i] : left[i] + 32]
        np.testing.assert_array_equal(found[i], crop[:, :, ::-1] if mirrored[i] else crop)
    assert set(top) == set(left) == set(range(9))
    assert 0 < mirrored.sum() < 40


def test_augmentation_follows_from_the_job_and_can_be_left_out(cifar10):
    """Equal generators, equal gradients; whole shards without augmentation are those of f."""
    folder, _ = cifar10
    chosen = networks.cifar10_resnet20(folder, 2, batch=8)
    x = chosen.x0.astype(np.float32)
    first, again, other = (
        chosen.gradient(x, 1, 0, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    plain = networks.cifar10_resnet20(folder, 2, batch=None, augment=False)
    x = x.astype(np.float64)
    mean = (plain.gradient(x, 0) + plain.gradient(x, 1)) / 2
    np.testing.assert_allclose(plain.full_gradient(x), mean, rtol=1e-9, atol=1e-13)


def test_resnet20_replays_and_takes_several_stepsizes(cifar10):
    """Lanes at once agree with single runs: BatchNorm's statistics are not in the way."""
    chosen = networks.cifar10_resnet20(cifar10[0], 2, batch=4)
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=2, steps=2)
    options = {"evaluations": 0, "dtype": "float64"}
    together = ag.replay(trace, chosen, [0.01, 0.02], threads=1, **options)
    assert chosen._lanes_work
    alone = ag.replay(trace, chosen, 0.02, **options)
    np.testing.assert_allclose(together.models[:, 1], alone.models[:, 0], rtol=1e-6, atol=1e-8)


def test_networks_are_pickled(cifar10):
    """Plain pickle will do: worker processes get the same gradients, augmented or not."""
    for chosen in (networks.digits_cnn(2), networks.cifar10_resnet20(cifar10[0], 2, batch=4)):
        twin = pickle.loads(pickle.dumps(chosen))
        ours, theirs = (p.gradient(p.x0, 1, 0, np.random.default_rng(2)) for p in (chosen, twin))
        np.testing.assert_array_equal(ours, theirs)


def test_a_folder_that_is_none_is_refused(tmp_path, refused):
    """The error says what the published folder is called."""
    said = refused(lambda: networks.cifar10_resnet20(tmp_path / "nowhere", 2))
    assert "nowhere" in said
    assert "cifar-10-batches-bin" in said
    assert "must be a path" in refused(lambda: networks.cifar10_resnet20(3, 2), TypeError)


@pytest.mark.parametrize("name", [FILES[2], FILES[5]])
def test_a_missing_file_is_named(tmp_path, refused, name):
    """Training or test file."""
    written(tmp_path)
    (tmp_path / name).unlink()
    said = refused(lambda: networks.cifar10_resnet20(tmp_path, 2))
    assert f"must hold {name}" in said
    assert "cifar-10-batches-bin" in said


@pytest.mark.parametrize("size", [0, 1, 3072, 3 * 3073 - 100, 3 * 3073 + 1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, refused, size):
    """Any size that is no positive number of records."""
    written(tmp_path)
    (tmp_path / FILES[1]).write_bytes(bytes(size))
    said = refused(lambda: networks.cifar10_resnet20(tmp_path, 2))
    assert FILES[1] in said
    assert f"multiple of 3073 bytes, got {size}" in said


def test_a_label_above_nine_is_refused(tmp_path, refused):
    """With its value and where it stands."""
    records = written(tmp_path)[FILES[3]]
    records[:, 0] = 9, 0, 200, 3, 11, 0
    records.tofile(tmp_path / FILES[3])
    said = refused(lambda: networks.cifar10_resnet20(tmp_path, 2))
    assert "0 to 9, got 200 in record 2 of" in said
    assert FILES[3] in said


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: networks.digits_mlp(2, hidden=0), "hidden must be an integer >= 1"),
        (lambda folder: networks.digits_mlp(0), "n_workers must be an integer >= 1"),
        (lambda folder: networks.digits_cnn(2, seed=-1), "digits_cnn: seed must be"),
        (lambda folder: networks.digits_cnn(2000), "2000 workers and 1437 rows"),
        (lambda folder: networks.cifar10_resnet20(folder, 2, augment=1), "augment must be true or"),
    ],
)
def test_parameters_out_of_range_are_refused(cifar10, refused, make, said):
    """One clear line each."""
    assert said in refused(lambda: make(cifar10[0]))


def test_a_network_starts_where_it_is_told(tmp_path, refused):
    """By default at its own initialisation."""
    own = networks.digits_mlp(2, seed=4)
    np.save(tmp_path / "start.npy", own.x0 / 2)
    assert networks.digits_mlp(2, x0="zeros").x0.tolist() == [0.0] * own.dim
    np.testing.assert_array_equal(networks.digits_mlp(2, x0=tmp_path / "start.npy").x0, own.x0 / 2)
    normal = networks.digits_cnn(2, x0="normal").x0
    assert abs(normal.mean()) < 0.06
    assert normal.std() == pytest.approx(1, abs=0.05)
    text = refused(lambda: networks.digits_mlp(2, x0=[1, 2, 3]))
    assert text == "TorchProblem: x0 must have shape (2410,), got (3,)."


def test_workers_of_a_network_may_share_all_rows(refused):
    """f_i = f, whoever asks."""
    one = networks.digits_mlp(1, split="contiguous", batch=None)
    shared = networks.digits_mlp(50, split="shared")
    x = one.x0
    assert shared.loss(x) == pytest.approx(one.loss(x), rel=1e-12)
    np.testing.assert_allclose(shared.full_gradient(x), one.full_gradient(x), rtol=1e-6, atol=1e-9)
    whole = networks.digits_mlp(50, split="shared", batch=None)
    np.testing.assert_array_equal(whole.gradient(x, 49), one.gradient(x, 0))
    text = refused(lambda: networks.digits_mlp(2, alpha=0.5))
    assert "alpha is for the split 'dirichlet' only" in text
