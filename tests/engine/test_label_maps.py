"""The file of a segmenter's predictions: label maps in a narrow type, and nothing that outweighs them."""

import pickle

import pytest
import torch
from mmengine.registry import METRICS, DefaultScope


@pytest.mark.parametrize(('classes', 'dtype'), [(256, torch.uint8), (257, torch.int16)])
def test_label_maps_are_written_without_logits(tmp_path, classes, dtype):
    labels = torch.arange(6).reshape(1, 2, 3) + classes - 6
    sample = dict(
        img_path='a.jpg',
        ori_shape=(2, 3),
        seg_logits=dict(data=torch.zeros(classes, 2, 3)),
        gt_sem_seg=dict(data=labels),
        pred_sem_seg=dict(data=labels),
    )
    path = tmp_path / 'x.pkl'
    with DefaultScope.overwrite_default_scope('mmseg'):
        metric = METRICS.build(dict(type='DumpLabelMaps', out_file_path=str(path)))
    metric.dataset_meta = dict(classes=['x'] * classes)
    metric.process({}, [sample])
    assert metric.evaluate(1) == {}
    (written,) = pickle.loads(path.read_bytes())
    assert written.keys() == {'img_path', 'ori_shape', 'pred_sem_seg'}
    assert written['pred_sem_seg']['data'].dtype == dtype
    assert torch.equal(written['pred_sem_seg']['data'].long(), labels)
    assert sample.keys() >= {'seg_logits', 'gt_sem_seg'}, 'other metrics need them'
