"""Wrong implementations, each the papers' equations with one defect, and the property that must catch it."""

from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional

from tests.conformance import mechanisms, nets
from tests.conformance.equations import explain


def forgets_the_class(method, module, layer, images, target):
    return explain(method, module, layer, images, torch.zeros_like(target))


def explains_the_first_class_for_all(method, module, layer, images, target):
    return explain(method, module, layer, images, target[:1].expand(len(target)))


def accepts_any_class(method, module, layer, images, target):
    return explain(method, module, layer, images, target.clamp(0, nets.CLASSES - 1))


def explains_the_probability(method, module, layer, images, target):
    module = deepcopy(module)
    module.head = nn.Sequential(module.head, nn.Softmax(1))
    return explain(method, module, layer, images, target)


def retold(change):
    """A mechanism of tests/conformance/mechanisms.py as an implementation."""

    def wrong(_method, module, _layer, images, target):
        return change(module, images, target)[0]

    wrong.__name__ = change.__name__
    return wrong


def averages_over_channels(*asked):
    return explain(*asked) / nets.CHANNELS


def turns_the_map_over(*asked):
    return -explain(*asked)


def blurs_the_map(*asked):
    return functional.avg_pool2d(explain(*asked), 3, stride=1, padding=1)


def draws_the_map_a_column_aside(*asked):
    return explain(*asked).roll(1, 2)


def favours_the_middle(*asked):
    saliency = explain(*asked)
    return saliency * torch.linspace(-1, 1, saliency.shape[2]).cos()


def scales_across_the_batch(*asked):
    saliency = explain(*asked)
    return (saliency - saliency.min()) / (saliency.max() - saliency.min())


def overlooks_the_first_channel(method, module, layer, images, target):
    module = deepcopy(module)
    with torch.no_grad():
        module.conv.weight[0], module.conv.bias[0] = 0, 0
    return explain(method, module, layer, images, target)


def refuses_bf16(method, module, layer, images, target):
    if images.dtype == torch.bfloat16:
        raise TypeError("Got unsupported ScalarType BFloat16")
    return explain(method, module, layer, images, target)


def puts_the_model_into_eval_mode(method, module, layer, images, target):
    return explain(method, module.eval(), layer, images, target)


def seeds_the_global_generator(*asked):
    torch.manual_seed(0)
    return explain(*asked)


def leaves_its_hooks(method, module, layer, images, target):
    module.get_submodule(layer).register_forward_hook(lambda *_: None)
    return explain(method, module, layer, images, target)


def replaces_the_layer(method, module, layer, images, target):
    setattr(module, layer, deepcopy(module.get_submodule(layer)))
    return explain(method, module, layer, images, target)


def swallows_every_error(*asked):
    try:
        return explain(*asked)
    except Exception:
        return None


def tutorial(_method, module, layer, images, target):
    """Grad-CAM as many a page has it: hooks that nobody removes after an error, features not copied, backward()."""
    kept = {}

    def keep(_module, _args, output):
        kept["features"] = output.detach()
        output.register_hook(lambda gradient: kept.update(gradients=gradient))

    handle = module.get_submodule(layer).register_forward_hook(keep)
    module(images).gather(1, target[:, None]).sum().backward()
    handle.remove()
    return (kept["gradients"].mean((2, 3), keepdim=True) * kept["features"]).sum(1)


PLANTED = [
    ("equals_the_papers_equation", "gradcam", forgets_the_class),
    ("equals_the_papers_equation", "hirescam", blurs_the_map),
    (
        "small_gradients_weigh_as_the_equation_says",
        "gradcam_plus_plus",
        retold(mechanisms.epsilon_beside_the_squared_gradient),
    ),
    ("masks_lie_where_the_cells_lie", "scorecam", retold(mechanisms.aligned_corners)),
    ("ablated_channels_are_set_to_zero", "ablationcam", retold(mechanisms.ever_lower_values)),
    ("ablation_depends_on_neither_chunk_nor_order", "ablationcam", retold(mechanisms.ever_lower_values)),
    ("a_mean_and_a_linear_head_make_four_methods_one", "xgradcam", forgets_the_class),
    ("the_map_adds_up_to_the_score_less_bias", "hirescam", averages_over_channels),
    ("the_map_conserves_gradient_times_feature", "xgradcam", averages_over_channels),
    ("equals_the_papers_equation", "gradcam_plus_plus", retold(mechanisms.cubed_gradients)),
    ("equals_the_papers_equation", "eigengradcam", retold(mechanisms.centred_products)),
    ("masks_lie_where_the_cells_lie", "scorecam", retold(mechanisms.stretched_before_enlarging)),
    ("a_planted_object_is_positive", "eigencam", turns_the_map_over),
    ("nothing_lies_behind_a_wall_in_the_head", "layercam", blurs_the_map),
    ("the_map_flips_with_the_image", "gradcam", draws_the_map_a_column_aside),
    ("the_map_moves_with_the_image", "gradcam", favours_the_middle),
    ("the_order_of_the_batch_does_not_matter", "gradcam", explains_the_first_class_for_all),
    ("the_rest_of_the_batch_does_not_matter", "gradcam", scales_across_the_batch),
    ("the_scale_of_the_scores_does_not_matter", "gradcam", explains_the_probability),
    ("the_order_of_the_channels_does_not_matter", "gradcam", overlooks_the_first_channel),
    ("bf16_ranks_places_as_fp32_does", "gradcam", refuses_bf16),
    ("an_in_place_relu_behind_the_layer_does_not_change_the_map", "gradcam", tutorial),
    ("frozen_parameters_do_not_change_the_map", "gradcam", tutorial),
    ("nothing_is_left_behind", "gradcam", tutorial),
    ("nothing_is_left_behind", "gradcam", leaves_its_hooks),
    ("nothing_is_left_behind", "gradcam", replaces_the_layer),
    ("nothing_is_left_behind_when_the_forward_breaks", "gradcam", tutorial),
    ("nothing_is_left_behind_when_the_forward_breaks", "gradcam", swallows_every_error),
    ("the_mode_is_left_as_it_was", "gradcam", puts_the_model_into_eval_mode),
    ("a_class_out_of_range_is_refused", "gradcam", accepts_any_class),
    ("a_class_out_of_range_is_refused", "gradcam", swallows_every_error),
    ("the_global_random_state_is_untouched", "gradcam", seeds_the_global_generator),
]
