"""Which layers train when: the backbone in block groups, freed from the top."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn

from carray.config import FinetuneConfig
from carray.models.classifier import Classifier
from carray.models.lora import lora_parameters

BatchNorm = nn.modules.batchnorm._BatchNorm  # all that gather running statistics


def block_groups(backbone: nn.Module) -> list[list[str]]:
    """Return the parameter names of each block group, from the stem to the top.

    The groups are timm's coarse ones (`group_matcher`): stem, stages or blocks, last norm.
    """
    if not hasattr(backbone, "group_matcher"):
        return [[name for name, _ in backbone.named_parameters()]]
    matcher = backbone.group_matcher(coarse=True)  # type: ignore[operator]
    by_group = group_parameters(backbone, matcher)
    return [list(by_group[group]) for group in sorted(by_group)]


def free_groups(finetune: FinetuneConfig, epoch: int, num_groups: int) -> int:
    """Return how many block groups, from the top, train in the 1-based `epoch`."""
    past = epoch - 1
    match finetune.policy:
        case "head_only":
            return 0
        case "unfreeze_at":
            return num_groups if past >= finetune.epoch else 0
        case "gradual":
            return min(num_groups, past // finetune.epoch)
        case _:
            return num_groups


def set_trainable(classifier: Classifier, finetune: FinetuneConfig, epoch: int) -> bool:
    """Freeze and free the backbone's parameters for `epoch`; say whether anything changed."""
    groups = block_groups(classifier.backbone)
    free = free_groups(finetune, epoch, len(groups))
    trainable = {name for group in groups[len(groups) - free :] for name in group}
    if finetune.policy == "lora":
        trainable = lora_parameters(classifier.backbone)
    changed = False
    for name, parameter in classifier.backbone.named_parameters():
        trains = name in trainable
        changed |= parameter.requires_grad != trains
        parameter.requires_grad_(trains)
        if not trains:
            parameter.grad = None
    classifier.backbone_frozen = free == 0
    return changed


def set_train_mode(classifier: Classifier) -> None:
    """Put the classifier in train mode, frozen batch norms and a frozen backbone in eval mode."""
    classifier.train()
    if classifier.backbone_frozen:
        classifier.backbone.eval()
        return
    for module in classifier.backbone.modules():
        if isinstance(module, BatchNorm):
            trains = [parameter.requires_grad for parameter in module.parameters()]
            if trains and not any(trains):
                module.eval()
