"""What is done to images: which pixels go first, and what takes their place. Functions of tensors, not of models."""

from camcore.perturbations.baselines import black, blur, mean_colour, noise
from camcore.perturbations.ranking import rank_pixels

__all__ = ["black", "blur", "mean_colour", "noise", "rank_pixels"]
