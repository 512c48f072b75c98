"""Asking the model of a recording again: about other images, or about other features in place of the recorded ones.

Whatever stood behind the layer when it was recorded stands there again, and it is the same score that is asked for.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from camcore.cost import count
from camcore.hooks import KeepGradients, as_written, bare, frozen
from camcore.images import Images
from camcore.recording import Recording, ZeroGradient, explained, run_behind, run_suffix
from camcore.subject import Classifier
from camcore.throughput import known_batch_size, known_memory_format

Rows = Int[Tensor, " n"]  # which image of the recording each of n variants was made from
Scores = Float[Tensor, " n"]


def subject_of(rec: Recording) -> Classifier:
    """The recorded model.

    Raises:
        ValueError: The recording was made by hand and knows none.
    """
    if rec.subject is None:
        raise ValueError("this recording has no model to ask again; make it with camcore.record(subject, images)")
    return rec.subject


def chunk_of(rec: Recording) -> int:
    """Images per forward: as the recording says, or else the fastest, measured once for each model."""
    return rec.chunk or known_batch_size(subject_of(rec), rec.images.dtype)


def rerun(rec: Recording, images: Images) -> Float[Tensor, "n classes"]:
    """One forward of other images, with what stood behind the layer; differentiable if the images ask for it."""
    subject = subject_of(rec)
    images = images.contiguous(memory_format=known_memory_format(subject, images.dtype))
    if rec.behind is None:
        # a wrapper (compiled, on several GPUs) is fast at forwards, and in the way of gradients
        return (bare(subject) if images.requires_grad else subject).logits(images)
    return run_behind(subject, images, rec.behind, layer=rec.layer)[1]


def score_of(rec: Recording, logits: Float[Tensor, "n classes"], rows: Rows) -> Scores:
    """The explained score: of row n's logits, for the class that image rows[n] of the recording is explained for."""
    return explained(logits, rec.target[rows], None if rec.against is None else rec.against[rows])


def chunks(rec: Recording, total: int) -> Iterator[Int[Tensor, " chunk"]]:
    """The numbers below `total`, in order, in pieces of the size that one forward takes best."""
    if total:  # splitting nothing gives one empty piece, and a forward of no images
        yield from torch.arange(total, device=rec.images.device).split(chunk_of(rec))


def pairs(rec: Recording, count: int) -> Iterator[tuple[Rows, Int[Tensor, " n"], range]]:
    """Every image with each of `count` variants, as one long list in chunks, so that forwards are full.

    The images of the recording share a variant, so that what is drawn for it does not depend on the batch.

    Yields:
        Which image and which variant, for each of the n in a forward, and the range that holds these variants: known
        without waiting for the device.
    """
    images, done = len(rec.images), 0
    for part in chunks(rec, count * images):
        last = done + len(part) - 1
        yield part % images, part // images, range(done // images, last // images + 1)
        done = last + 1


@torch.no_grad()
def scores(rec: Recording, images: Images, rows: Rows) -> Scores:
    """The explained score of each image; image n is a variant of image rows[n] of the recording."""
    parts = [score_of(rec, rerun(rec, images[part]), rows[part]) for part in chunks(rec, len(images))]
    return torch.cat(parts)


@contextmanager
def differentiable(rec: Recording) -> Iterator[None]:
    """Inside, `rerun` builds a graph from images that ask for a gradient, whatever the caller's or the model's mode."""
    module = bare(subject_of(rec)).module
    with torch.inference_mode(False), torch.enable_grad(), as_written(), KeepGradients(), frozen(module):
        yield


def slope(rec: Recording, score: Scores, leaf: Tensor) -> Tensor:
    """The gradient of the summed scores with respect to what the images were made from; one backward per score.

    Raises:
        ZeroGradient: The model cuts its scores off from its input (by `inference_mode` inside it, or `detach`).
    """
    if not score.requires_grad:
        raise ZeroGradient(
            f"the class scores of {subject_of(rec).name} are cut off from its input; "
            "remove torch.inference_mode or .detach() from the model"
        )
    count(backwards=len(score))
    return torch.autograd.grad(score.sum(), leaf)[0]


def pixel_gradients(rec: Recording, images: Images, rows: Rows) -> tuple[Scores, Images]:
    """The explained score of each image and its gradient with respect to the pixels; one backward per image.

    Raises:
        ZeroGradient: As `slope`.
    """
    found, gradients = [], []
    with differentiable(rec):
        for part in chunks(rec, len(images)):
            pixels = images[part].detach().clone().requires_grad_()
            score = score_of(rec, rerun(rec, pixels), rows[part])
            gradients.append(slope(rec, score, pixels))
            found.append(score.detach())
    return torch.cat(found), torch.cat(gradients)


def suffix_scores(rec: Recording, row: int, variants: Float[Tensor, "n k i j"]) -> Scores:
    """The explained score of one image when the rest of the network sees each variant in place of its features.

    One image runs through the layers before the target layer, all variants through those after it.
    """
    behind = variants if rec.behind is None else rec.behind(variants)
    logits = run_suffix(subject_of(rec), rec.images[row : row + 1], behind, layer=rec.layer)
    return score_of(rec, logits, torch.full((len(variants),), row, device=logits.device))
