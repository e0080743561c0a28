"""What happens to a gradient at the server, when a step uses it."""

from asgrad.corrections.base import Correction
from asgrad.corrections.delay_compensation import DelayCompensation
from asgrad.corrections.mixing import Mixing

__all__ = ["Correction", "DelayCompensation", "Mixing"]
