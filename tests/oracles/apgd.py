"""APGD (Croce and Hein 2020, arXiv:2003.01690, algorithm 1) on one image, written down step by step.

The loss is the cross-entropy of the label. Every point is rounded to 8 bits before the model is asked, and the search
ends at the first one with another class: that is not in the paper, and the attack under test says that it does it.
"""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor


def checkpoints(iterations: int) -> list[int]:
    """Section 3.2: p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06); w_j = ceil(p_j N)."""
    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    return [ceil(share * iterations) for share in p]


def apgd(model: Callable[[Tensor], Tensor], image: Tensor, label: int, epsilon: float, iterations: int, mask: Tensor):
    """The first image with another class, or the one with the highest loss; its loss; whether the class is another."""
    x0 = (image * 255).round() / 255

    def project(x: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(x, x0 - epsilon), x0 + epsilon).clamp(0, 1)

    def as_file(x: Tensor) -> Tensor:
        return (x * 255).round() / 255

    def look(x: Tensor) -> tuple[float, Tensor, bool]:
        shown = as_file(x).requires_grad_()
        scores = model(shown[None])[0]
        loss = -scores.log_softmax(0)[label]
        return float(loss.detach()), torch.autograd.grad(loss, shown)[0] * mask, int(scores.argmax()) != label

    w = checkpoints(iterations)
    eta = 2 * epsilon
    f_0, gradient_0, fallen = look(x0)
    if fallen:
        return as_file(x0), f_0, True
    x_now, x_before = project(x0 + eta * gradient_0.sign()), x0  # line 3: x(1)
    f_now, gradient, fallen = look(x_now)
    if fallen:
        return as_file(x_now), f_now, True
    x_max, f_max, gradient_max = (x0, f_0, gradient_0) if f_0 >= f_now else (x_now, f_now, gradient)
    rises, eta_then, f_max_then = int(f_now > f_0), eta, f_0
    for k in range(1, iterations):
        if k in w:
            previous = w[w.index(k) - 1]
            rarely = rises < 0.75 * (k - previous)  # condition 1
            stuck = eta_then == eta and f_max_then == f_max  # condition 2
            eta_then, f_max_then, rises = eta, f_max, 0
            if rarely or stuck:
                eta, x_now, f_now, gradient = eta / 2, x_max, f_max, gradient_max
        z = project(x_now + eta * gradient.sign())
        x_next = project(x_now + 0.75 * (z - x_now) + 0.25 * (x_now - x_before))
        f_next, gradient_next, fallen = look(x_next)
        if fallen:
            return as_file(x_next), f_next, True
        rises += int(f_next > f_now)
        x_before, x_now, f_now, gradient = x_now, x_next, f_next, gradient_next
        if f_now > f_max:
            x_max, f_max, gradient_max = x_now, f_now, gradient
    return as_file(x_max), f_max, False
