"""What the backbones share: pretrained weights with checks, frozen stages and statistics."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unireplknet_mm.configuration import find_dicts, pretrained_weights
from unireplknet_mm.models.state_dict import load_classifier_backbone


class Backbone(BaseModule):
    """A backbone of MMEngine; a subclass says which parts freeze, and reads files of more forms if it can."""

    norm_eval = False

    def init_weights(self) -> None:
        """Initialise as `init_cfg` says; 'Pretrained' reads a checkpoint of the same network, with checks.

        Raises:
            UserError: the file is missing, damaged or foreign, or its weights are of another structure.
        """
        pretrained = pretrained_weights(self.init_cfg)
        if not pretrained:
            super().init_weights()
            return
        settings = next(init for init in find_dicts(self.init_cfg) if 'checkpoint' in init)
        options = {key: settings[key] for key in ('sum_input_channels',) if key in settings}
        self.load_pretrained(pretrained[0], **options)
        self._is_init = True

    def load_pretrained(self, path: str) -> None:
        """Load all weights from a file, a URL or a published name."""
        load_classifier_backbone(self, path)

    def train(self, mode: bool = True) -> 'Backbone':
        super().train(mode)
        self.freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def freeze_stages(self) -> None:
        for module in self.frozen_parts():
            module.eval()
            module.requires_grad_(False)

    def frozen_parts(self) -> Sequence[nn.Module]:
        """What `frozen_stages` keeps as it is."""
        return ()
