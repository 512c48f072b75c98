"""Measures: one float per image. Nothing here averages over images."""

from camcore.metrics.deletion import area_under, deletion_curve, insertion_curve
from camcore.metrics.leakage import leakage

__all__ = ["area_under", "deletion_curve", "insertion_curve", "leakage"]
