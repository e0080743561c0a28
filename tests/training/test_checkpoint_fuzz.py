"""Damaged checkpoints and odd configurations are refused cleanly, whatever the damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import asgrad as ag
from asgrad.experiments import TrainConfig
from asgrad.training.checkpoint import list_checkpoints, load_checkpoint

pytest.importorskip("safetensors")

FILES = ("state.safetensors", "checkpoint.json")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint, the contents of its files, and what it holds."""
    folder = tmp_path_factory.mktemp("kept")
    problem = ag.problems.Tridiagonal(6, n_workers=2, noise=0.1)
    ag.train(problem, ag.methods.Pure(), 0.1, steps=12, checkpoints=ag.Checkpoints(folder))
    path = list_checkpoints(folder)[-1]
    whole = {name: (path / name).read_bytes() for name in FILES}
    return path, whole, load_checkpoint(path)


def same(state: dict, other: dict) -> bool:
    """Say whether two states are equal, bit for bit."""
    return state.keys() == other.keys() and all(
        np.array_equal(state[name], other[name], equal_nan=True) for name in state
    )


def one_line(call) -> tuple[str, object]:
    """The one line with which a call is refused, or what it returned."""
    try:
        return "", call()
    except ag.AsgradError as error:
        said = str(error)
    assert len(said.splitlines()) == 1
    return said, None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_is_seen(checkpoint, data):
    """Flipped, cut, added or emptied bytes: refused in one line, or without any effect."""
    path, whole, (state, head) = checkpoint
    name = data.draw(st.sampled_from(FILES))
    content = bytearray(whole[name])
    kind = data.draw(st.sampled_from(["flip", "cut", "add", "swap"]))
    if kind == "flip":
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "add":
        content += data.draw(st.binary(min_size=1, max_size=40))
    else:
        content = bytearray(data.draw(st.binary(max_size=60)))
    (path / name).write_bytes(content)
    said, found = one_line(lambda: load_checkpoint(path))
    (path / name).write_bytes(whole[name])
    if not said:  # for instance a space more in the JSON
        assert found[1] == head
        assert same(found[0], state)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=8),
    st.lists(st.floats(), max_size=3), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(said=st.dictionaries(st.sampled_from([*TrainConfig.model_fields, "stepsiz"]), VALUES))
def test_odd_settings_are_refused_in_one_line(said):
    """Or taken, if they are valid."""
    refusal, config = one_line(lambda: TrainConfig.read(None, said))
    if not refusal:
        assert config.stepsize is None or config.stepsize > 0
        assert config.workers >= 1


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
def test_files_that_are_no_configuration_are_refused(content, tmp_path):
    """Whatever they hold; an empty one leaves the defaults."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    refusal, config = one_line(lambda: TrainConfig.read(path, {}))
    assert refusal or config.model_dump() == TrainConfig.read(None, {}).model_dump()
