"""The small kernels that others are made of, against plain arithmetic."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from numba import types

from asgrad.kernels import (
    Bound,
    BoundType,
    add_scaled,
    compiled,
    copy_columns,
    exp_nonpositive,
    is_compiled,
    is_finite,
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
