"""The small kernels that others are made of, against plain arithmetic."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, localcontext
from threading import Barrier

import numpy as np
import pytest
from numba import types
from numba.core import event
from numba.core.errors import TypingError

from asgrad.kernels import (
    Bound,
    BoundType,
    add_scaled,
    compiled,
    copy_columns,
    exp_nonpositive,
    inlined,
    is_compiled,
    is_finite,
    make_ready,
    multiply,
    prefetch,
)


def test_exp_is_right_to_its_promised_accuracy():
    rng = np.random.default_rng(1)
    points = [0.0, -1e-300, -1e-17, -1e-8, -np.log(2.0) / 2, -np.log(2.0), -707.99, -708.0]
    points += list(-rng.exponential(3.0, 300)) + list(-rng.uniform(0.0, 708.0, 300))
    with localcontext() as context:
        context.prec = 40
        for x in map(float, points):
            exact = Decimal(x).exp()
            error = abs(Decimal(exp_nonpositive(x)) - exact) / exact
            assert error < Decimal("4e-16"), x


def test_exp_at_the_ends():
    assert exp_nonpositive(0.0) == 1.0
    assert exp_nonpositive(-0.0) == 1.0
    smallest = exp_nonpositive(-708.0)
    assert 0.0 < smallest < 4e-308
    assert exp_nonpositive(-1e4) == smallest
    assert exp_nonpositive(-np.inf) == smallest
    assert np.isnan(exp_nonpositive(np.nan))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_lanes", [1, 2, 5])
def test_add_scaled_is_the_plain_update(dtype, n_lanes):
    rng = np.random.default_rng(n_lanes)
    out, v = (rng.normal(size=(37, n_lanes)).astype(dtype) for _ in range(2))
    scale = rng.normal(size=n_lanes).astype(dtype)
    wanted = out + scale * v
    kept = v.copy()
    add_scaled(out, scale, v)
    np.testing.assert_array_equal(out, wanted, strict=True)
    np.testing.assert_array_equal(v, kept)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [[1.0], [0.3], [1.0, 1.0], [0.3, 0.3], [0.3, 1.0, -2.0]])
def test_multiply_is_the_plain_product(dtype, scale):
    out = np.random.default_rng(1).normal(size=(37, len(scale))).astype(dtype)
    factors = np.array(scale, dtype)
    wanted = out * factors
    multiply(out, factors)
    np.testing.assert_array_equal(out, wanted, strict=True)


def test_copy_columns_writes_its_columns_and_no_other():
    x = np.arange(6.0).reshape(3, 2)
    out = np.full((3, 5), -1.0)
    copy_columns(out, 2, x)
    np.testing.assert_array_equal(out[:, 2:4], x)
    assert (out[:, [0, 1, 4]] == -1.0).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_numbers_are_finite_unless_one_is_nan_or_infinite(dtype):
    values = np.full((9, 1), np.finfo(dtype).max, dtype)  # their sum overflows
    values[4] = np.finfo(dtype).smallest_subnormal
    assert is_finite(values)
    for ill in (np.nan, np.inf, -np.inf):
        for i in range(values.size):
            holed = values.copy()
            holed[i] = ill
            assert not is_finite(holed)


def test_prefetch_touches_nothing_inside_or_outside_of_an_array():
    @compiled(types.void(types.float64[::1], types.int64))
    def ask(array, index):
        prefetch(array, index)

    array = np.arange(8.0)
    for index in (0, 7, 8, 2**40):
        ask(array, index)
        ask.py_func(array, index)
    np.testing.assert_array_equal(array, np.arange(8.0))


def test_one_compiled_caller_takes_any_bound_function():
    signature = types.float64(types.float64)
    applied = types.float64(BoundType(signature), types.float64)

    @compiled(applied)
    def twice(function, x):
        return function(function(x))

    def bound(factor):
        @compiled(signature)
        def scale(x):
            return factor * x

        return Bound(scale, signature)

    call = twice.get_compile_result(applied).entry_point
    functions = [bound(factor) for factor in (3.0, 5.0)]
    assert [call(function, 2.0) for function in functions] == [18.0, 50.0]


def test_only_what_was_compiled_counts_as_compiled():
    @compiled(types.int64(types.int64))
    def double(n):
        return 2 * n

    assert is_compiled(double)
    assert double(21) == 42
    assert not is_compiled(double.py_func)
    assert not is_compiled(lambda n: n)


_OF_INTEGERS = types.int64(types.int64)


def test_a_kernel_is_compiled_when_it_is_first_needed_and_for_its_types_alone():
    """By a call from Python, in another kernel, or as an argument of one."""

    @compiled(_OF_INTEGERS)
    def double(n):
        return 2 * n

    @compiled(_OF_INTEGERS)
    def triple(n):
        return 3 * n

    @compiled(_OF_INTEGERS)
    def sextuple(n):
        return double(triple(n))

    @compiled(types.int64(types.FunctionType(_OF_INTEGERS), types.int64))
    def apply(function, n):
        return function(n)

    kernels = double, triple, sextuple, apply
    assert [len(kernel.overloads) for kernel in kernels] == [0, 0, 0, 0]
    with pytest.raises(TypeError, match="No matching definition"):
        apply(lambda n: n, 7)
    assert [len(kernel.overloads) for kernel in kernels] == [0, 0, 0, 1]
    assert apply(sextuple, 7) == 42
    assert double(np.int32(21)) == 42  # as it ever was: what fits is converted
    with pytest.raises(TypeError, match="No matching definition"):
        double(np.zeros(1))
    assert [list(kernel.overloads) for kernel in kernels[:3]] == [[(types.int64,)]] * 3


def test_threads_that_need_a_kernel_at_once_compile_it_once():
    @compiled([types.int64(types.int64), types.float64(types.float64)])
    def double(n):
        return 2 * n

    start = Barrier(4)

    def ask(n):
        start.wait()
        return double(n)

    with event.install_recorder("numba:compile") as recorder, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, (21, 10.5, 21, 10.5)))
    assert found == [42, 21.0, 42, 21.0]
    assert [type(n) for n in found] == [int, float] * 2
    assert sum(told.is_end for _, told in recorder.buffer) == 2


def test_what_cannot_be_compiled_says_so_when_it_is_made_ready():
    @compiled(_OF_INTEGERS)
    def wrong(n):
        return n.nothing

    assert is_compiled(wrong)
    for _ in range(2):
        with pytest.raises(TypingError, match="nothing"):
            make_ready(lambda n: n, wrong)
        with pytest.raises(TypingError, match="nothing"):
            wrong(1)


@compiled(_OF_INTEGERS)
def _double(n):
    """2 n."""
    return 2 * n


@inlined
def _triple(n):
    """3 n."""
    return 3 * n


@pytest.mark.parametrize(("function", "expected"), [(_double, 14), (_triple, 21)])
def test_kernels_and_helpers_can_be_pickled(function, expected):
    assert pickle.loads(pickle.dumps(function))(7) == expected


def test_a_helper_is_compiled_once_for_all_constants_and_keeps_to_its_types():
    @inlined
    def add(n, flag, more=1):
        return n + 10 if flag else n + more

    @compiled(types.float64(types.int64, types.float64))
    def total(n, x):
        return add(n, True) + add(n, False, 2) + add(1, False, 3) + add(x, True) + add(n, n > 0)

    with event.install_recorder("numba:compile") as recorder:
        assert total(5, 0.5) == 15 + 7 + 4 + 10.5 + 15
    compilations = [told.data["args"] for _, told in recorder.buffer if told.is_end]
    assert len(compilations) - 1 == 2 + 1, compilations
    assert add(5, False) == 6  # from Python as well
