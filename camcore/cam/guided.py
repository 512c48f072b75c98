"""Guided backpropagation: gradients with respect to the pixels, of which every ReLU passes back the positive part."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from camcore.ask import chunk_of, pixel_gradients, subject_of
from camcore.cam.gradients import gradcam
from camcore.cam.registry import register_partial
from camcore.errors import Undefined
from camcore.hooks import bare
from camcore.intercept import GuidedReLUs, check_not_scripted
from camcore.maps import rectify, upsample
from camcore.recording import Recording


@register_partial
def guided_backprop(rec: Recording, *, partly: bool = False) -> Float[Tensor, "b h w"]:
    """Guided backpropagation, signed, summed over the colours: score per unit of a pixel's grey value in [0, 1].

    Springenberg et al. 2014, arXiv:1412.6806, section 3.4: R_l = (f_l > 0) (R_{l+1} > 0) R_{l+1} at each ReLU, be it a
    module, a function or a method, in place or not; ReLU6 passes nothing where it is clipped from above either. It is
    known to look much alike for all classes (Nie, Zhang and Patel 2018, arXiv:1805.07039).

    Args:
        rec: Of a model that can be asked again.
        partly: Rewire the ReLUs of a network that has other activations as well, which keep their own derivative.

    Raises:
        Undefined: No ReLU ran, or, unless `partly`, other activations did: the method is not defined for them.
    """
    subject = bare(subject_of(rec))
    check_not_scripted(subject.module, subject.name)
    rec = replace(rec, chunk=chunk_of(rec))  # measured before, not inside, the block
    with GuidedReLUs() as relus:
        _, gradients = pixel_gradients(rec, rec.images, torch.arange(len(rec.images), device=rec.images.device))
    others = ", ".join(sorted(relus.others))
    if not relus.rewired:
        found = f" (it uses {others})" if others else ""
        raise Undefined(
            f"no ReLU was met in a forward of {subject.name}{found}: guided backpropagation would be the plain "
            "gradient; use a method that needs no ReLU"
        )
    if others and not partly:
        raise Undefined(
            f"{subject.name} uses {others} beside ReLU: guided backpropagation is not defined there; "
            "use another method, or partly=True to rewire its ReLUs alone"
        )
    return gradients.sum(1)


@register_partial
def guided_gradcam(rec: Recording, *, partly: bool = False) -> Float[Tensor, "b h w"]:
    """Guided Grad-CAM: guided backpropagation times rectified Grad-CAM, upsampled to the image.

    Selvaraju et al. 2017, arXiv:1610.02391, section 3.2. Signed where guided backpropagation is.

    Raises:
        Undefined: As `guided_backprop`.
    """
    guided = guided_backprop(rec, partly=partly)
    return guided * upsample(rectify(gradcam(rec)), rec.images.shape[2:], rec.placement)
