"""Fixtures that many tests use."""

from __future__ import annotations

import signal
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


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> None:
    """Let SIGINT be heard, here and in processes that tests start, whoever started us.

    A shell that starts a job in the background has it ignore SIGINT, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
