"""The pixel decoder of Mask2Former (arXiv 2112.01527, Section 3.2.1) in a form that can be recorded."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unireplknet_mm.export.detection.queries import MapShapes


class RecordablePixelDecoder(nn.Module):
    """mmdet's `MSDeformAttnPixelDecoder` with the shapes of maps as numbers.

    mmdet writes them into tensors and cuts the encoder's output by their values, which a graph does not have.

    Args:
        decoder: mmdet's, whose layers it runs.
    """

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.decoder = decoder

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, list[Tensor]]:
        """Maps of the backbone -> the map for masks, (N, C, H/4, W/4), and those that queries attend to."""
        decoder = self.decoder
        first = len(maps) - decoder.num_encoder_levels
        encoded = list(maps[first:])[::-1]  # from low resolution to high
        levels = range(len(maps) - 1, first - 1, -1)
        sizes = [tuple(x.shape[-2:]) for x in encoded]
        n, device = maps[0].shape[0], maps[0].device
        tokens, positions, points = [], [], []
        for i, (x, level, size) in enumerate(zip(encoded, levels, sizes, strict=True)):
            tokens.append(_as_tokens(decoder.input_convs[i](x)))
            no_padding = x.new_zeros((n, *size), dtype=torch.bool)
            position = decoder.postional_encoding(no_padding)
            positions.append(_as_tokens(position + decoder.level_encoding.weight[i][:, None, None]))
            grid = decoder.point_generator.single_level_grid_priors(size, level, device=device)
            extent = torch.tensor([[size[1], size[0]]], device=device) * decoder.strides[level]
            points.append(grid / extent)
        count = len(sizes)
        memory = decoder.encoder(
            query=torch.cat(tokens, dim=1),
            query_pos=torch.cat(positions, dim=1),
            key_padding_mask=torch.cat([x.new_zeros(x.shape[:2]).bool() for x in tokens], dim=1),
            spatial_shapes=MapShapes(sizes, device),
            reference_points=torch.cat(points)[None, :, None].repeat(n, 1, count, 1),
            level_start_index=None,  # the compiled op alone reads it
            valid_ratios=maps[0].new_ones((n, count, 2)),
        )
        parts = memory.split([height * width for height, width in sizes], dim=1)
        decoded = [
            part.transpose(1, 2).reshape(n, -1, *size)
            for part, size in zip(parts, sizes, strict=True)
        ]
        for level in range(first - 1, -1, -1):
            lateral = decoder.lateral_convs[level](maps[level])
            enlarged = F.interpolate(
                decoded[-1], size=lateral.shape[-2:], mode='bilinear', align_corners=False
            )
            decoded.append(decoder.output_convs[level](lateral + enlarged))
        return decoder.mask_feature(decoded[-1]), decoded[: decoder.num_outs]


def _as_tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H·W, C)."""
    return x.flatten(2).transpose(1, 2)
