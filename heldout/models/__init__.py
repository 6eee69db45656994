"""Architectures by name; `build` is all that training and evaluation need."""

from heldout.models.registry import ARCHITECTURES, build, is_known

__all__ = ["ARCHITECTURES", "build", "is_known"]
