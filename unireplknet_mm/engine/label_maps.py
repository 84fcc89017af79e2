"""The predictions of a segmenter as a file of reasonable size, for `tools/test.py --out`."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import DumpResults
from mmengine.registry import METRICS

# What a mmseg sample holds beside its label map: a number for every class and pixel, and the ground truth.
LEFT_OUT = ('seg_logits', 'i_seg_logits', 'gt_sem_seg', 'gt_edge_map', 'gt_depth_map')


@METRICS.register_module()
class DumpLabelMaps(DumpResults):
    """Writes for each image the label map, `pred_sem_seg`, and what names the image, to a pickle file.

    `DumpResults` of MMEngine keeps the logits too, 600 bytes a pixel for the 150 classes of ADE20K, of
    all images in memory until the end.

    Args:
        out_file_path: a file that ends with `.pkl` or `.pickle`: a list of one dict an image, whose
            `pred_sem_seg['data']` is a (1, H, W) tensor, uint8 for up to 256 classes, else int16.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        dtype = torch.uint8 if len(self.dataset_meta['classes']) <= 256 else torch.int16
        for sample in data_samples:
            result = {key: value for key, value in sample.items() if key not in LEFT_OUT}
            labels = sample['pred_sem_seg']['data']
            result['pred_sem_seg'] = dict(data=labels.to('cpu', dtype))
            self.results.append(result)
