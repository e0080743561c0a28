"""What happens to a gradient at the server, when a step uses it."""

from asgrad.corrections.base import Correction

__all__ = ["Correction"]
