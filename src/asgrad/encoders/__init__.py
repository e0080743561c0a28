"""What happens to a gradient at its worker."""

from asgrad.encoders.base import Encoder
from asgrad.encoders.clip import Clip
from asgrad.encoders.rand_k import RandK
from asgrad.encoders.top_k import TopK

__all__ = ["Clip", "Encoder", "RandK", "TopK"]
