"""A stand-in for BERT in Grounding DINO: one token a character, its embedding learnt, no download."""

import inspect
from types import SimpleNamespace

import torch
from mmdet.models.layers import MLP
from mmdet.models.layers.transformer.dino_layers import DinoTransformerDecoder
from mmdet.models.layers.transformer.grounding_dino_layers import GroundingDinoTransformerDecoder
from mmdet.registry import MODELS
from torch import Tensor, nn

LANGUAGE_DIM = 32


def mend_decoder() -> None:
    """Give the decoder's coordinates as many features as it encodes them with, until the process ends.

    onedl-mmdetection doubled them in DINO's decoder, which Grounding DINO inherits, and not in the layer that
    reads them: there Grounding DINO runs with no backbone. The mmdet that OpenMMLab published is left alone.
    """
    if 'num_feats=query.shape[2]' not in inspect.getsource(DinoTransformerDecoder.forward):
        return
    init_layers = GroundingDinoTransformerDecoder._init_layers

    def init_with_all_features(self: nn.Module) -> None:
        init_layers(self)
        self.ref_point_head = MLP(4 * self.embed_dims, self.embed_dims, self.embed_dims, 2)

    GroundingDinoTransformerDecoder._init_layers = init_with_all_features


class CharacterTokens(SimpleNamespace):
    def char_to_token(self, position: int) -> int:
        return position


@MODELS.register_module(force=True)
class StubLanguageModel(nn.Module):
    """What Grounding DINO asks of its language model."""

    pad_to_max = False
    max_tokens = 256

    def __init__(self):
        super().__init__()
        self.language_backbone = nn.Module()
        self.language_backbone.body = nn.Embedding(128, LANGUAGE_DIM)
        self.language_backbone.body.language_dim = LANGUAGE_DIM

    def tokenizer(self, captions: list[str], **kwargs) -> CharacterTokens:
        return CharacterTokens(input_ids=_character_codes(captions))

    def forward(self, captions: list[str], **kwargs) -> dict[str, Tensor]:
        codes = _character_codes(captions)  # [N, L]
        seen = torch.ones_like(codes, dtype=torch.bool)
        return dict(
            embedded=self.language_backbone.body(codes),
            masks=seen[:, None].expand(-1, codes.shape[1], -1),  # [N, L, L]
            position_ids=torch.arange(codes.shape[1]).expand_as(codes),
            text_token_mask=seen,
        )


def _character_codes(captions: list[str]) -> Tensor:
    length = max(map(len, captions))
    return torch.tensor([[ord(c) for c in caption.ljust(length)] for caption in captions])
