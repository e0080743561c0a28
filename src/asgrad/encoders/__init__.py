"""What happens to a gradient at its worker."""

from asgrad.encoders.base import Encoder
from asgrad.encoders.clip import Clip

__all__ = ["Clip", "Encoder"]
