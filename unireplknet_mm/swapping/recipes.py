"""How UniRepLKNet was trained: what a swapped config takes over from the published recipes.

Drop path and layer decay are those of the configs in `configs/`, which follow the published commands;
learning rates and weight decay are appendix B's.
"""

from typing import NamedTuple

WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.999)
WARM_UP_ITERATIONS = 1500  # of the segmenters
NORMALIZATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])  # of RGB images


class Rates(NamedTuple):
    """Of one architecture in one task."""

    drop_path_rate: float
    decay_rate: float


PUBLISHED_RATES = dict(
    det=dict(
        t=Rates(0.3, 0.8),
        s=Rates(0.5, 0.8),
        b=Rates(0.6, 0.8),
        l=Rates(0.7, 0.7),
        xl=Rates(0.7, 0.7),
    ),
    seg=dict(
        t=Rates(0.2, 1.0),
        s=Rates(0.3, 0.9),
        b=Rates(0.3, 0.9),
        l=Rates(0.4, 0.85),
        xl=Rates(0.4, 0.85),
    ),
    # The smaller ones from scratch on ImageNet-1K, the others fine-tuned with ImageNet-22K weights.
    cls=dict(
        a=Rates(0.0, 1.0),
        f=Rates(0.0, 1.0),
        p=Rates(0.1, 1.0),
        n=Rates(0.1, 1.0),
        t=Rates(0.2, 1.0),
        s=Rates(0.4, 1.0),
        b=Rates(0.2, 0.8),
        l=Rates(0.3, 0.8),
        xl=Rates(0.3, 0.8),
    ),
)


def published_rates(task: str, arch: str | dict) -> tuple[Rates, str]:
    """The rates for an architecture in a task, and where the drop path is from, for the user.

    Where the paper did not train an architecture in that task: of the smaller ones than T the drop path of
    their ImageNet recipe, with T's layer decay; of H, XL's rates; of one of the user's, T's.
    """
    rates = PUBLISHED_RATES[task]
    if isinstance(arch, str) and arch in rates:
        return rates[arch], f'as in the recipe of UniRepLKNet-{arch.upper()}'
    if isinstance(arch, str) and arch in PUBLISHED_RATES['cls']:
        on_imagenet = PUBLISHED_RATES['cls'][arch].drop_path_rate
        return rates['t']._replace(
            drop_path_rate=on_imagenet
        ), 'as on ImageNet: none is published here'
    other = 'xl' if arch == 'h' else 't'
    return rates[other], f'that of UniRepLKNet-{other.upper()}: none is published for this one'


def learning_rate(task: str, batch_size: int, is_pretrained: bool) -> tuple[float, str]:
    """AdamW's learning rate for a batch size, in proportion to the published one, and the rule in words."""
    if task != 'cls':
        published, batch = 1e-4, 16
    elif is_pretrained:
        published, batch = 5e-5, 512
    else:
        published, batch = 4e-3, 4096
    rate = float(f'{published * batch_size / batch:.4g}')
    return rate, f'{published:g} for a batch of {batch}, in proportion to the batch of {batch_size}'
