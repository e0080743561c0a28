"""Fixtures that many tests use."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from asgrad.errors import AsgradError


@pytest.fixture
def refused() -> Callable[..., str]:
    """A function that makes a call, expects asgrad to refuse it, and returns its one line."""

    def refused(call: Callable[[], object], kind: type[Exception] = AsgradError) -> str:
        with pytest.raises(kind) as caught:
            call()
        text = str(caught.value)
        assert text
        assert "\n" not in text
        return text

    return refused
