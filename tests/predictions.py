"""What `tools/test.py --out` writes: comparing it, and making annotations of it, so that a score is known.

A data set whose annotations are what one form of a model predicts has a known score: all that there is, for
every form that predicts the same, and less for any other.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_masks
from tool_runs import read_scores

# Below it a detection is neither compared nor an annotation.
DETECTION_SCORE = 0.2


def read(path: Path) -> list[dict]:
    with path.open('rb') as file:
        return sorted(pickle.load(file), key=lambda sample: sample['img_path'])


class Classification:
    score_names = {'accuracy/top1': 100}
    classifier = 'head.fc.weight'

    @staticmethod
    def assert_same(actual: list[dict], expected: list[dict]) -> None:
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one['pred_score'], other['pred_score'], rtol=1e-3, atol=1e-5)

    @staticmethod
    def assert_recorded(record: dict, sample: dict) -> None:
        """Check that what `tools/predict.py` wrote of an image is what `tools/test.py` predicted."""
        scores = sample['pred_score']
        assert record['predicted'] == sample['pred_label'].tolist() == record['labels'][:1]
        assert record['scores'] == scores[record['labels']].tolist()
        assert sorted(record['scores'], reverse=True) == record['scores']
        assert record['scores'] == scores.topk(5).values.tolist()

    @staticmethod
    def annotate(predictions: list[dict], data_root: Path) -> list[str]:
        """Write them as annotations; the options of a test that uses these."""
        lines = []
        for sample in predictions:
            path = Path(sample['img_path'])
            lines.append(f'{path.parent.name}/{path.name} {int(sample["pred_label"])}')
        (data_root / 'meta' / 'predicted.txt').write_text('\n'.join(lines))
        return ['test_dataloader.dataset.ann_file=meta/predicted.txt']


class Segmentation:
    score_names = {'mIoU': 100, 'aAcc': 100}
    classifier = 'decode_head.conv_seg.weight'

    @staticmethod
    def assert_same(actual: list[dict], expected: list[dict]) -> None:
        for one, other in zip(actual, expected, strict=True):
            labels, others = (sample['pred_sem_seg']['data'] for sample in (one, other))
            assert labels.dtype == torch.uint8
            assert len(others.unique()) > 2, 'too little to compare'
            assert (labels == others).double().mean() > 0.999

    @staticmethod
    def assert_recorded(record: dict, sample: dict) -> None:
        labels = sample['pred_sem_seg']['data'][0].numpy()
        assert record['size'] == list(labels.shape)
        recorded = np.full(labels.shape, 255)
        for segment in record['segments']:
            mask = coco_masks.decode(segment['mask']).astype(bool)
            assert segment['share'] == pytest.approx(mask.mean())
            recorded[mask] = segment['label']
        assert (recorded == labels).all()

    @staticmethod
    def annotate(predictions: list[dict], data_root: Path) -> list[str]:
        folder = data_root / 'annotations' / 'predicted'
        folder.mkdir(exist_ok=True)
        for sample in predictions:
            labels = sample['pred_sem_seg']['data'][0].numpy()
            # 0 is 'unlabelled' in ADE20K.
            assert cv2.imwrite(str(folder / f'{Path(sample["img_path"]).stem}.png'), labels + 1)
        return ['test_dataloader.dataset.data_prefix.seg_map_path=annotations/predicted']


class Detection:
    score_names = {'coco/bbox_mAP': 1, 'coco/segm_mAP': 1}
    classifier = 'fc_cls.weight'

    @staticmethod
    def assert_same(actual: list[dict], expected: list[dict]) -> None:
        for one, other in zip(actual, expected, strict=True):
            found, others = one['pred_instances'], other['pred_instances']
            wanted = np.flatnonzero(others['scores'] > DETECTION_SCORE)
            assert len(wanted) > 5, 'too little to compare'
            for index in wanted:
                candidates = np.flatnonzero(found['labels'] == others['labels'][index])
                distances = (found['bboxes'][candidates] - others['bboxes'][index]).abs().amax(1)
                nearest = candidates[distances.argmin()]
                assert distances.min() < 0.1
                assert abs(found['scores'][nearest] - others['scores'][index]) < 1e-3
                masks = [found['masks'][nearest]], [others['masks'][index]]
                assert coco_masks.iou(*masks, [0])[0, 0] > 0.99

    @staticmethod
    def assert_recorded(record: dict, sample: dict) -> None:
        found = sample['pred_instances']
        order = found['scores'].argsort(descending=True, stable=True)
        order = order[found['scores'][order] > DETECTION_SCORE]
        assert len(order) > 5, 'too little to compare'
        assert record['scores'] == found['scores'][order].tolist()
        assert record['labels'] == found['labels'][order].tolist()
        assert record['boxes'] == found['bboxes'][order].tolist()
        masks = [found['masks'][index] for index in order]
        assert [mask['counts'].encode() for mask in record['masks']] == [
            mask['counts'] for mask in masks
        ]

    @staticmethod
    def annotate(predictions: list[dict], data_root: Path) -> list[str]:
        original = data_root / 'annotations' / 'instances_val2017.json'
        document = json.loads(original.read_text())
        categories = [category['id'] for category in document['categories']]
        document['annotations'] = []
        for sample in predictions:
            found = sample['pred_instances']
            for index in np.flatnonzero(found['scores'] > DETECTION_SCORE):
                left, top, right, bottom = found['bboxes'][index].tolist()
                mask = found['masks'][index]
                document['annotations'].append(
                    dict(
                        id=len(document['annotations']) + 1,
                        image_id=sample['img_id'],
                        category_id=categories[int(found['labels'][index])],
                        bbox=[left, top, right - left, bottom - top],
                        area=float(coco_masks.area(mask)),
                        segmentation=dict(mask, counts=mask['counts'].decode()),
                        iscrowd=0,
                    )
                )
        predicted = original.with_name('predicted.json')
        predicted.write_text(json.dumps(document))
        return [
            'test_dataloader.dataset.ann_file=annotations/predicted.json',
            f'test_evaluator.ann_file={predicted}',
        ]


def in_both_forms(
    call: Callable, config: Path, checkpoint: Path, *options: object, folder: Path
) -> tuple[list[dict], dict[str, float]]:
    """Test in the training form and in the deploy form, with scores that agree.

    Args:
        call: the fixture of this name.
        options: of `tools/test.py`.

    Returns:
        What the training form predicts, a dict a sample, and its metrics.
    """
    samples = {}
    for form, choice in {'training': [], 'deploy': ['--deploy']}.items():
        out = folder / f'{form}.pkl'
        arguments = (*choice, '--work-dir', folder / form, '--out', out, *options)
        call('test', config, checkpoint, *arguments)
        samples[form] = pickle.loads(out.read_bytes())
    Classification.assert_same(samples['deploy'], samples['training'])
    return samples['training'], read_scores(folder / 'training')
