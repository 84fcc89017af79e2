"""Detectors as one function of fixed sizes: against mmdet's own results, and as ONNX."""

import mmcv
import numpy as np
import onnx
import pytest
import torch
from detectors import HEADS, build, one_stage_config, pictures, query_config, region_config
from torch.overrides import TorchFunctionMode

from unireplknet_mm.export import FORMATS, ExportError, deployable
from unireplknet_mm.export.comparison import compare
from unireplknet_mm.export.deployable import as_arrays
from unireplknet_mm.export.detection.letterbox import fit
from unireplknet_mm.export.detection.results import differences, paste
from unireplknet_mm.export.detection.suppression import StableSorts, Suppression, best
from unireplknet_mm.export.formats import Settings

STAGES = {'Mask R-CNN': 1, 'Cascade Mask R-CNN': 2}
IMAGES = pictures(2, 75, 118)


@pytest.fixture(scope='module', params=STAGES.values(), ids=STAGES)
def detector(request):
    return build(region_config(request.param))


@pytest.fixture(scope='module')
def onnx_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('onnx') / 'mask_rcnn.onnx'
    file = deployable(build(region_config(1)))
    example = file.example(2, (3, 64, 96))
    FORMATS['onnx'].write(file, example, path, Settings(dynamic=('batch',)))
    return file, path


@torch.no_grad()
def outputs(file, images):
    return as_arrays(file.output_names, file(torch.from_numpy(images)))


def within_limits(file, differences, boxes=0.0):
    """`boxes`: pixels that boxes may be off by, if more than usual."""
    limits = file.limits('fp32')
    limits = limits | dict(boxes=max(limits['boxes'], boxes))
    return differences.keys() == limits.keys() and all(
        value <= limits[name] for name, value in differences.items()
    )


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(pasted_masks=True),
        dict(letterbox=(64, 96)),
        dict(letterbox=(160, 128), pasted_masks=True),
    ],
    ids=str,
)
def test_detections_are_those_of_mmdet(detector, options):
    file = deployable(detector, **options)
    found = outputs(file, IMAGES)
    reference = file.reference(torch.from_numpy(IMAGES))
    assert (found['scores'] > 0).sum() >= 10
    assert within_limits(file, file.differences(reference, found))


GREY = dict(img=(104, 116, 124))  # as pipelines have it: blue, green, red
PADDINGS = [
    dict(type='Pad', size=(640, 640), pad_val=GREY),
    dict(type='mmdet.Pad', size_divisor=16, pad_val=114),
    dict(type='Pad', pad_to_square=True, pad_val=dict(img=(114, 114, 114), seg=255)),
]


@pytest.mark.parametrize('padding', PADDINGS, ids=['size', 'divisor', 'square'])
@pytest.mark.parametrize('letterbox', [(96, 96), (160, 96)])
def test_a_letterbox_is_padded_as_by_the_pipeline(padding, letterbox):
    model = build(one_stage_config(HEADS['ATSS']))
    file = deployable(model, letterbox=letterbox, padding=padding)
    reference = file.reference(torch.from_numpy(IMAGES))
    assert (reference['scores'] > 0).sum() >= 10
    assert within_limits(file, file.differences(reference, outputs(file, IMAGES)))
    black = outputs(deployable(model, letterbox=letterbox), IMAGES)
    assert not within_limits(file, file.differences(reference, black))


def test_padding_without_a_colour_is_refused():
    padding = dict(type='Pad', size_divisor=32, padding_mode='reflect')
    with pytest.raises(ExportError, match="padding_mode='reflect'"):
        deployable(build(region_config(1)), letterbox=(64, 96), padding=padding)


def test_boxes_beyond_the_picture_suppress_none_of_another_picture():
    """YOLOX does not cut boxes to the picture."""
    inside, above = [0.0, 100.0, 50.0, 190.0], [0.0, -80.0, 50.0, 30.0]
    boxes = torch.tensor([[inside], [above]])
    scores = torch.tensor([[0.8], [0.9]])
    kept = Suppression(0.65, False)(boxes, scores, torch.zeros(2, 1))
    assert torch.equal(kept, scores)


def test_the_table_of_detectors_compares_with_double_precision():
    """Rows that are off by rounding ask for it."""
    from scripts.export_table import InDouble

    file = deployable(build(one_stage_config(HEADS['ATSS'])))
    inputs = [('0', torch.from_numpy(IMAGES[:1]))]
    exact = InDouble(file)
    comparison = compare(
        exact, lambda batch: file.reference(torch.from_numpy(batch)), inputs, 'fp32'
    )
    assert comparison.agrees and comparison.found > 0
    assert exact.reference(inputs[0][1])['boxes'].dtype == np.float64


def test_images_of_a_batch_do_not_see_each_other(detector):
    file = deployable(detector)
    together = outputs(file, IMAGES)
    for index in range(len(IMAGES)):
        alone = outputs(file, IMAGES[index : index + 1])
        one = {name: values[index : index + 1] for name, values in together.items()}
        for found in (alone, one):
            found['masks'] = found['masks'] > 0.5
        worst = differences(alone, one, file.decoder.score_threshold, 1e-3)
        assert worst['detections'] == 0
        assert max(worst['boxes'], worst['scores']) < 0.05


def test_onnx_runs_as_the_model_does(onnx_file):
    file, path = onnx_file
    run = FORMATS['onnx'].load(path, threads=1)
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {''} and not model.functions
    for count in (1, 2):
        images = pictures(count, 64, 96)
        differences = file.differences(file.reference(torch.from_numpy(images)), run(images))
        # With random weights rounding moves them by 1e-3, more or less with the number of threads.
        assert within_limits(file, differences, boxes=5e-3), differences


def test_onnx_finds_nothing_where_nothing_is_certain(onnx_file):
    _, path = onnx_file
    model = onnx.load(path)
    thresholds = [
        weight
        for weight in model.graph.initializer
        if np.isclose(onnx.numpy_helper.to_array(weight), 0.3).all()
    ]
    assert len(thresholds) == 1
    thresholds[0].CopyFrom(onnx.numpy_helper.from_array(np.float32(2), thresholds[0].name))
    changed = path.with_name('nothing.onnx')
    onnx.save(model, changed)
    found = FORMATS['onnx'].load(changed, threads=1)(pictures(1, 64, 96))
    assert (found['labels'] == -1).all()
    assert not any(found[name].any() for name in ('boxes', 'scores', 'masks'))


@pytest.mark.parametrize(
    'change, worst',
    [
        (lambda found: found['boxes'].__iadd__(0.02), 'boxes'),
        (lambda found: found['scores'].__imul__(0.99), 'scores'),
        (lambda found: found['labels'].__iadd__(1), 'detections'),
        (lambda found: found['masks'].__isub__(0.3), 'masks'),
        (lambda found: found['scores'][:, 0].__imul__(0), 'detections'),
    ],
    ids=['moved', 'less certain', 'other class', 'smaller', 'one lost'],
)
def test_what_differs_is_noticed(change, worst):
    file = deployable(build(region_config(1)))
    images = torch.from_numpy(IMAGES)
    found = {name: values.copy() for name, values in outputs(file, IMAGES).items()}
    change(found)
    assert file.differences(file.reference(images), found)[worst] > file.limits('fp32')[worst]


def test_a_comparison_says_how_many_detections_it_is_of():
    """Of none, any two files agree."""
    model = build(one_stage_config(HEADS['FCOS']))
    file = deployable(model)
    inputs = [('first', torch.from_numpy(IMAGES[:1])), ('second', torch.from_numpy(IMAGES[1:]))]

    def run(batch):
        return outputs(file, batch)

    comparison = compare(file, run, inputs, 'fp32')
    number = sum(int((run(batch.numpy())['scores'] > 0).sum()) for _, batch in inputs)
    assert comparison.agrees and number > 5
    assert comparison.inputs() == f'2 inputs, {number} detections'
    with torch.no_grad():
        model.bbox_head.conv_cls.bias -= 1e4
    comparison = compare(file, run, inputs, 'fp32')
    assert not comparison.agrees
    assert 'found nothing in 2 inputs' in comparison.lines()[-1]


@pytest.mark.parametrize(('side', 'expected'), [(50, 0.5), (100, 0.5), (1000, 0.05)])
def test_differences_of_large_boxes_are_shares_of_them(side, expected):
    found = dict(
        boxes=np.array([[[5, 5, 5 + side, 25]]], dtype=np.float64),
        scores=np.array([[0.7]]),
        labels=np.array([[1]]),
    )
    moved = dict(found, boxes=found['boxes'] + [0, 0, 0.5, 0])
    worst = differences(found, moved, 0.05, 1e-3)
    assert worst == dict(detections=0, boxes=pytest.approx(expected), scores=0)


@pytest.mark.parametrize(('size', 'pixel'), [((60, 48), 0.625), ((384, 192), 4.0)])
def test_differences_of_large_pictures_are_in_pixels_of_their_letterbox(size, pixel):
    file = deployable(build(region_config(1)), letterbox=(96, 96))
    reference = file.reference(torch.from_numpy(pictures(1, *size)))
    assert reference['pixel'] == [pixel]
    exists = reference['scores'][..., None] > 0
    moved = dict(reference, boxes=reference['boxes'] + exists * [0.0, 0.0, 0.01, 0.0])
    arguments = file.decoder.score_threshold, 1e-3
    found = differences(reference, moved, *arguments)['boxes']
    del reference['pixel']
    in_picture = differences(reference, moved, *arguments)['boxes']
    assert found == pytest.approx(in_picture / max(pixel, 1.0), rel=1e-2)


@pytest.mark.parametrize('across_classes', [False, True])
def test_suppression_is_that_of_mmcv(across_classes):
    from mmcv.ops import batched_nms  # after unireplknet_mm, which may have to provide it

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(3, 60, 2, generator=generator) * 50
    boxes = torch.cat((corners, corners + 5 + torch.rand(3, 60, 2, generator=generator) * 30), -1)
    scores = torch.rand(3, 60, generator=generator)
    scores[:, ::7] = 0
    labels = torch.randint(0, 4, (3, 60), generator=generator)
    settings = dict(type='nms', iou_threshold=0.4, class_agnostic=across_classes)
    suppression = Suppression.of(settings)
    for suppress in (suppression, suppression.sparse):
        kept, chosen = best(suppress(boxes, scores, labels), 60)
        for image in range(3):
            exists = scores[image] > 0
            detections, keep = batched_nms(
                boxes[image][exists], scores[image][exists], labels[image][exists], dict(settings)
            )
            assert 10 < len(keep) < exists.sum()
            assert torch.equal(kept[image][: len(keep)], detections[:, 4])
            assert not kept[image][len(keep) :].any()
            assert torch.equal(chosen[image][: len(keep)], exists.nonzero()[:, 0][keep])


def test_of_equal_scores_the_first_suppresses_the_other():
    """By mmcv alone it is chance which of them does."""
    from mmcv.ops import batched_nms

    boxes = torch.rand(1, 1, 2).repeat(1, 600, 2) * 50
    boxes[..., 2:] += 20
    boxes[..., 0] += torch.arange(600) / 1000  # all overlap, and none is another one
    scores, labels = torch.full((1, 600), 0.5), torch.zeros(1, 600, dtype=torch.long)
    settings = dict(type='nms', iou_threshold=0.5)
    _, chosen = best(Suppression.of(settings).sparse(boxes, scores, labels), 1)
    with StableSorts():
        _, kept = batched_nms(boxes[0], scores[0], labels[0], dict(settings))
    assert kept.tolist() == chosen[0].tolist() == [0]


@pytest.mark.parametrize('largest', [True, False])
def test_stable_sorts_are_sorts(largest):
    x = torch.rand(3, 400)
    with StableSorts():
        values, indices = x.topk(5, dim=1, largest=largest)
        assert torch.equal(x.sort(dim=1, descending=largest).values[:, :5], values)
    assert torch.equal(values, x.topk(5, dim=1, largest=largest).values)
    assert torch.equal(x.gather(1, indices), values)
    with StableSorts():
        assert torch.ones(400).topk(3).indices.tolist() == [0, 1, 2]
        assert torch.ones(400).sort(0, descending=True).indices.tolist() == list(range(400))


def test_best_pads_with_nothing():
    scores, chosen = best(torch.tensor([[0.2, 0.5]]), 4)
    assert scores.tolist() == [[0.5, pytest.approx(0.2), 0, 0]]
    assert chosen[0, :2].tolist() == [1, 0]


def test_masks_are_pasted_as_in_mmdet():
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(1, 3, 28, 28, generator=generator)
    boxes = torch.tensor([[[3.2, 4.7, 40.1, 30.3], [0, 0, 64, 48], [50.5, 20.0, 70.0, 60.0]]])
    expected, _ = _do_paste_mask(masks[0][:, None], boxes[0], 48, 64, skip_empty=False)
    torch.testing.assert_close(paste(masks, boxes, 48, 64)[0], expected, atol=1e-5, rtol=0)


def test_a_picture_that_is_a_line_keeps_a_pixel():
    fitted, placement = fit(torch.rand(1, 3, 1, 700), 64, 96)
    assert placement.bounds.tolist() == [96, 1] * 2
    assert fitted.isfinite().all()


@pytest.mark.parametrize('height, width', [(40, 100), (200, 30), (64, 96), (31, 33)])
def test_pictures_are_fitted_as_by_mmcv(height, width):
    rng = np.random.default_rng(0)
    picture = rng.random((height, width, 3), dtype=np.float32) * 255
    images = torch.from_numpy(picture).permute(2, 0, 1)[None]
    fitted, placement = fit(images, 64, 96)
    scale = min(64 / height, 96 / width)
    expected = mmcv.imrescale(picture, scale)
    new_height, new_width = expected.shape[:2]
    assert placement.bounds.tolist() == [new_width, new_height] * 2
    assert placement.scale.tolist() == pytest.approx([new_width / width, new_height / height] * 2)
    result = fitted[0, :, :new_height, :new_width].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(result, expected, atol=0.05)
    assert (~placement.is_padding).sum() == new_height * new_width


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(rcnn=dict(nms=dict(type='soft_nms', iou_threshold=0.5))), 'soft_nms'),
        (dict(rpn=dict(nms=dict(type='nms', iou_threshold=0.7, max_num=5))), 'max_num'),
    ],
)
def test_other_suppressions_are_refused(change, message):
    config = region_config(1)
    for part, settings in change.items():
        config['test_cfg'][part].update(settings)
    with pytest.raises(ExportError, match=message):
        deployable(build(config))


def test_unknown_parts_are_refused_by_name():
    config = region_config(1)
    extractor = config['roi_head']['bbox_roi_extractor']
    config['roi_head']['bbox_roi_extractor'] = dict(extractor, type='GenericRoIExtractor')
    with pytest.raises(ExportError, match='GenericRoIExtractor'):
        deployable(build(config))


@pytest.mark.parametrize('head', HEADS.values(), ids=HEADS)
def test_dense_heads_find_what_mmdet_finds(head):
    file = deployable(build(one_stage_config(head)))
    found = outputs(file, IMAGES)
    assert (found['scores'] > 0).sum() >= 10
    assert within_limits(file, file.differences(file.reference(torch.from_numpy(IMAGES)), found))


@pytest.mark.parametrize('kind', ['DETR', 'DeformableDETR', 'DINO'])
def test_queries_find_what_mmdet_finds(kind):
    file = deployable(build(query_config(kind)))
    found = outputs(file, IMAGES)
    assert (found['scores'] > 0).all()
    assert within_limits(file, file.differences(file.reference(torch.from_numpy(IMAGES)), found))


class Exchange(TorchFunctionMode):
    """Two neighbours of the first ranking change places."""

    def __init__(self):
        super().__init__()
        self.is_first = True

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is not torch.topk or not self.is_first:
            return result
        self.is_first = False
        order = torch.arange(result.indices.shape[1])
        order[10], order[11] = 11, 10
        return type(result)([part[:, order] for part in result])


def test_boxes_of_queries_with_ranks_may_move_when_two_change_places():
    """It is chance which of two of the same score comes first, and no fault of a file."""
    file = deployable(build(query_config('DINO')))
    found = outputs(file, IMAGES)
    with Exchange():
        other = outputs(file, IMAGES)
    strict = deployable(build(query_config('DeformableDETR'))).limits('fp32')['boxes']
    assert file.differences(found, other)['boxes'] > strict
    assert file.limits('fp32')['boxes'] > strict
    assert file.limits('fp16')['boxes'] == 2.0


def test_queries_refuse_what_they_would_attend_to():
    model = build(query_config('DETR'))
    with pytest.raises(ExportError, match='letterbox'):
        deployable(model, letterbox=(64, 96))
    model.data_preprocessor.pad_size_divisor = 32
    with pytest.raises(ExportError, match='multiples of 32'):
        outputs(deployable(model), IMAGES)


def test_masks_are_pasted_only_where_there_are_any():
    with pytest.raises(ExportError, match='no masks'):
        deployable(build(one_stage_config(HEADS['ATSS'])), pasted_masks=True)


def test_heads_with_rules_of_their_own_are_refused():
    head = dict(HEADS['ATSS'], type='PAAHead')
    with pytest.raises(ExportError, match='PAAHead'):
        deployable(build(one_stage_config(head)))
