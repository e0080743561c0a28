"""What happens to one job's gradient before it enters a direction."""

from asgrad.transforms.base import Transform
from asgrad.transforms.clip import Clip
from asgrad.transforms.identity import Identity

__all__ = ["Clip", "Identity", "Transform"]
