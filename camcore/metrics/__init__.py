"""Measures: one float per image. Nothing here averages over images."""

from camcore.metrics.average_drop import average_drop, increase_in_confidence, shown_by
from camcore.metrics.complexity import complexity_rise, histogram_entropy
from camcore.metrics.correlation import pearson, spearman
from camcore.metrics.deletion import (
    area_over_perturbation,
    area_under,
    deletion_curve,
    insertion_curve,
    pixel_flipping,
)
from camcore.metrics.leakage import leakage, over_blanking, variation, zero_share
from camcore.metrics.likeness import (
    hog_likeness,
    rank_likeness,
    structural_similarity,
    unsigned_rank_likeness,
)
from camcore.metrics.scores import Scores, class_scores, perturbed_scores
from camcore.metrics.subsets import draw_subsets, each_patch, hidden_scores, occlusion_correlation, sensitivity_n

__all__ = [
    "Scores",
    "area_over_perturbation",
    "area_under",
    "average_drop",
    "class_scores",
    "complexity_rise",
    "deletion_curve",
    "draw_subsets",
    "each_patch",
    "hidden_scores",
    "histogram_entropy",
    "hog_likeness",
    "increase_in_confidence",
    "insertion_curve",
    "leakage",
    "occlusion_correlation",
    "over_blanking",
    "pearson",
    "perturbed_scores",
    "pixel_flipping",
    "rank_likeness",
    "sensitivity_n",
    "shown_by",
    "spearman",
    "structural_similarity",
    "unsigned_rank_likeness",
    "variation",
    "zero_share",
]
