"""The form of every refusal: one line, the owner, the rule, the value."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

import asgrad as ag
from asgrad import errors
from asgrad.errors import (
    AsgradError,
    KindError,
    TraceError,
    UnknownNameError,
    available_memory,
    check_fraction,
    check_integer,
    check_memory,
    check_positive,
    in_one_line,
    n_axes,
    unknown_name,
)


def test_the_errors_are_value_errors_of_one_family():
    assert issubclass(AsgradError, ValueError)
    assert issubclass(TraceError, AsgradError)
    assert issubclass(UnknownNameError, AsgradError)
    assert issubclass(KindError, AsgradError)
    assert issubclass(KindError, TypeError)


@pytest.mark.parametrize("value", [1, 7, np.int64(7), np.uint8(7)])
def test_integers_of_every_make_are_taken(value):
    number = check_integer("Thing", "count", value, minimum=1)
    assert type(number) is int
    assert number == int(value)


@pytest.mark.parametrize(
    ("value", "limits", "text"),
    [
        (-3, {"minimum": 1}, "Thing: count must be an integer >= 1, got -3."),
        (0, {"minimum": 1}, "Thing: count must be an integer >= 1, got 0."),
        (9, {"minimum": 0, "maximum": 8}, "Thing: count must be an integer <= 8, got 9."),
    ],
)
def test_an_integer_out_of_range_is_refused(refused, value, limits, text):
    assert refused(lambda: check_integer("Thing", "count", value, **limits)) == text


@pytest.mark.parametrize("value", [1.0, 2.5, "3", None, True, False, [1], math.nan])
def test_what_is_no_integer_is_a_type_error(refused, value):
    text = refused(lambda: check_integer("Thing", "count", value, minimum=0), KindError)
    assert text == f"Thing: count must be an integer, got {value!r}."


def test_an_array_is_no_integer(refused):
    wrong = np.eye(2)
    text = refused(lambda: check_integer("Thing", "count", wrong, minimum=0), KindError)
    assert text.startswith("Thing: count must be an integer, got ")


@pytest.mark.parametrize("value", [1, 0.25, np.float32(0.25), np.int64(3), Fraction(1, 4)])
def test_positive_numbers_of_every_make_are_taken(value):
    number = check_positive("Thing", "size", value)
    assert type(number) is float
    assert number == float(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0"), (-1.5, "-1.5"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")],
)
def test_a_number_that_is_not_positive_is_refused(refused, value, said):
    text = refused(lambda: check_positive("Thing", "size", value))
    assert text == f"Thing: size must be finite and > 0, got {said}."


def test_zero_may_be_allowed(refused):
    assert check_positive("Thing", "size", 0, zero=True) == 0.0
    text = refused(lambda: check_positive("Thing", "size", -1, zero=True))
    assert text == "Thing: size must be finite and >= 0, got -1."


@pytest.mark.parametrize("value", ["1.0", None, True, [1.0], 1j])
def test_what_is_no_number_is_a_type_error(refused, value):
    text = refused(lambda: check_positive("Thing", "size", value), KindError)
    assert text == f"Thing: size must be a number, got {value!r}."


@pytest.mark.parametrize("value", [np.array([1.0, 2.0]), np.eye(2)])
def test_an_array_is_no_number(refused, value):
    text = refused(lambda: check_positive("Thing", "size", value), KindError)
    assert text.startswith("Thing: size must be a number, got ")


def test_a_number_too_large_for_a_float_is_refused(refused):
    text = refused(lambda: check_positive("Thing", "size", 10**400))
    assert text.startswith("Thing: size must be finite and > 0")


@pytest.mark.parametrize("value", [0, 1, 0.5, Decimal("0.5")])
def test_fractions_are_taken(value):
    assert check_fraction("Thing", "share", value) == float(value)


@pytest.mark.parametrize(("value", "said"), [(-0.1, "-0.1"), (1.5, "1.5"), (math.nan, "nan")])
def test_what_is_no_fraction_is_refused(refused, value, said):
    text = refused(lambda: check_fraction("Thing", "share", value))
    assert text == f"Thing: share must lie in [0, 1], got {said}."


def test_a_misspelt_name_gets_the_closest_one_and_all_valid_ones():
    error = unknown_name("fruit", "aple", ["pear", "apple", "fig"])
    assert type(error) is UnknownNameError
    assert str(error) == "unknown fruit 'aple'. Did you mean 'apple'? Valid: apple, fig, pear."


def test_a_name_like_no_other_gets_the_valid_ones_alone():
    error = unknown_name("fruit", "zzzzzz", ["pear", "apple"])
    assert str(error) == "unknown fruit 'zzzzzz'. Valid: apple, pear."


def test_an_error_in_one_line_is_its_own_unless_another_error_caused_it():
    """Ray puts what a worker raised into `cause`; others may use the name as they like."""
    error = RuntimeError("first line\nsecond line")
    assert in_one_line(error) == "RuntimeError: first line"
    outer = ValueError("a page of traceback")
    outer.cause = error
    assert in_one_line(outer) == "RuntimeError: first line"
    outer.cause = "disk"
    assert in_one_line(outer) == "ValueError: a page of traceback"


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [
        (1001, "1 kB"),
        (8 * 10**12, "8 TB"),
        (8.5 * 10**9, "8.5 GB"),
        (999_600, "1 MB"),
        (8 * 10**300, "8e+282 EB"),
        (math.inf, "inf EB"),
        (math.nan, "nan B"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused(refused, monkeypatch, n_bytes, said):
    monkeypatch.setattr(errors, "available_memory", lambda: 1000)
    check_memory("Thing", "7 rows", 1000)
    text = refused(lambda: check_memory("Thing", "7 rows", n_bytes, "take fewer rows"))
    wanted = f"would take {said} of memory, 1 kB are available; take fewer rows."
    assert text == f"Thing: 7 rows {wanted}"


def test_the_available_memory_is_that_of_a_machine():
    """A megabyte at least, less than any machine has."""
    assert 1e6 < available_memory() < 1e15


def test_the_axes_of_what_is_no_array_are_two():
    """Lists of unequal length are refused by what was asked for, not by NumPy."""
    values = [3, "abc", None, [1, 2], np.ones(2), np.ones((2, 2)), [[1], [1, 2]]]
    assert [n_axes(value) for value in values] == [0, 0, 0, 1, 1, 2, 2]


def test_lists_of_unequal_length_are_refused_by_every_door(refused):
    """In our words."""
    uneven = [[1.0], [1.0, 2.0]]
    problem = ag.problems.Quadratic(np.ones(2), n_workers=2)
    trace = ag.simulate("pure", "fixed", n_workers=2, steps=2)
    assert "stepsize" in refused(lambda: ag.replay(trace, problem, uneven))
    assert "evaluations" in refused(lambda: ag.replay(trace, problem, 0.1, evaluations=uneven))
    assert "scale" in refused(lambda: ag.simulate("pure", ag.times.Fixed(uneven), n_workers=2))
