"""The rules of a swap, one file a concern, in the order in which they run.

Each is a function of a `Swap`, which it changes and to which it reports.
"""

from unireplknet_mm.swapping.rules.backbone import replace_backbone
from unireplknet_mm.swapping.rules.heads import adapt_heads
from unireplknet_mm.swapping.rules.levels import match_levels
from unireplknet_mm.swapping.rules.necks import adapt_neck
from unireplknet_mm.swapping.rules.normalization import adapt_normalization
from unireplknet_mm.swapping.rules.optimizer import adapt_optimizer
from unireplknet_mm.swapping.rules.purpose import tell_of_the_purpose
from unireplknet_mm.swapping.rules.refusals import refuse_what_cannot_be_swapped
from unireplknet_mm.swapping.rules.runtime import import_the_suite, name_work_dir_after_the_file
from unireplknet_mm.swapping.rules.weights import replace_weights

RULES = (
    refuse_what_cannot_be_swapped,
    match_levels,
    replace_backbone,
    replace_weights,
    adapt_normalization,
    adapt_heads,  # before the neck: it measures what the original one puts out
    adapt_neck,
    adapt_optimizer,
    tell_of_the_purpose,
    import_the_suite,
    name_work_dir_after_the_file,
)

__all__ = ['RULES']
