"""A user's own model, data and metric: two UniRepLKNets, neither called `backbone`, on nine channels."""

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import nn
from torch.utils.data import Dataset

IMAGE_CHANNELS, DEPTH_CHANNELS = 8, 1


@MODELS.register_module()
class TwoEncoders(BaseModel):
    """Classifies (N, 9, H, W) maps by the pooled last stages of an encoder each for image and depth."""

    def __init__(self, image_encoder: dict, depth_encoder: dict, num_classes: int = 4):
        super().__init__()
        encoders = dict(image_encoder=image_encoder, depth_encoder=depth_encoder)
        self.net = nn.ModuleDict({name: MODELS.build(cfg) for name, cfg in encoders.items()})
        self.classifier = nn.Linear(sum(e.out_channels[-1] for e in self.net.values()), num_classes)

    def forward(self, inputs, labels=None, mode='tensor'):
        parts = inputs.split((IMAGE_CHANNELS, DEPTH_CHANNELS), 1)
        maps = [encoder(x)[-1] for encoder, x in zip(self.net.values(), parts, strict=True)]
        logits = self.classifier(torch.cat([x.mean((2, 3)) for x in maps], 1))
        if mode == 'loss':
            return dict(loss=nn.functional.cross_entropy(logits, labels))
        return logits if mode == 'tensor' else list(logits)


@DATASETS.register_module()
class RandomMaps(Dataset):
    """Four maps of random numbers, always the same."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(int(index))
        inputs = torch.randn(IMAGE_CHANNELS + DEPTH_CHANNELS, 40, 48, generator=generator)
        return dict(inputs=inputs, labels=index % 4)


@METRICS.register_module()
class LogitNorm(BaseMetric):
    """The mean norm of the logits."""

    def process(self, data_batch, data_samples):
        self.results += [logits.double().norm().item() for logits in data_samples]

    def compute_metrics(self, results):
        return dict(logit_norm=sum(results) / len(results))
