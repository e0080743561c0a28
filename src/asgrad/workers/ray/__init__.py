"""Workers on a Ray cluster; ray itself is imported when they are opened."""

from asgrad.workers.ray.options import Ray

__all__ = ["Ray"]
