"""What is done to images: which pixels go first, and what takes their place. Functions of tensors, not of models."""

from camcore.perturbations.baselines import black, blur, mean_colour, noise
from camcore.perturbations.compression import jpeg
from camcore.perturbations.geometry import mirrored, translated
from camcore.perturbations.insertion import laid_over
from camcore.perturbations.jitter import down_up, sign_noise, uniform_noise
from camcore.perturbations.patches import patch_means, patch_numbers, patch_sums
from camcore.perturbations.ranking import rank_pixels
from camcore.perturbations.road import noisy_linear
from camcore.perturbations.shuffling import cut_lines, dealt, derangements, faded

__all__ = [
    "black",
    "blur",
    "cut_lines",
    "dealt",
    "derangements",
    "down_up",
    "faded",
    "jpeg",
    "laid_over",
    "mean_colour",
    "mirrored",
    "noise",
    "noisy_linear",
    "patch_means",
    "patch_numbers",
    "patch_sums",
    "rank_pixels",
    "sign_noise",
    "translated",
    "uniform_noise",
]
