"""The only place that aggregates: from one number per unit to an estimate. Knows numbers, not models."""

from camcore.statistics.betting import confidence_sequence, equivalence_p_value, n_needed, p_value
from camcore.statistics.estimate import Estimate
from camcore.statistics.macro import macro_mean
from camcore.statistics.multiplicity import holm, simultaneous_level
from camcore.statistics.paired import cluster_means, paired_differences
from camcore.statistics.proportion import clopper_pearson

__all__ = [
    "Estimate",
    "clopper_pearson",
    "cluster_means",
    "confidence_sequence",
    "equivalence_p_value",
    "holm",
    "macro_mean",
    "n_needed",
    "p_value",
    "paired_differences",
    "simultaneous_level",
]
