"""Files of detectors in every format, and the script of docs/detector_files.md: `make test-export`."""

import subprocess

import numpy as np
import pytest
import torch
from detectors import HEADS, build, one_stage_config, pictures, query_config, region_config
from file_models import blocks_of, environment_without_torch, slow, write
from PIL import Image

from unireplknet_mm.export import deployable, load
from unireplknet_mm.export.comparison import compare

pytestmark = slow

SHAPE = (3, 64, 96)
CONFIGS = {
    'Cascade Mask R-CNN': region_config(2),
    'RetinaNet': one_stage_config(HEADS['RetinaNet']),
    'GFL': one_stage_config(HEADS['GFL']),
    'DETR': query_config('DETR'),
    'Deformable DETR': query_config('DeformableDETR'),
    'DINO': query_config('DINO'),
}


def check(file, path, sizes, boxes=0.0):
    """The file finds what the model does; `boxes`: pixels that boxes may be off by, if more than usual."""
    inputs = [
        (str((count, *size)), torch.from_numpy(pictures(count, *size))) for count, size in sizes
    ]
    comparison = compare(file, load(path, threads=1), inputs, 'fp32')
    comparison.limits = comparison.limits | dict(boxes=max(comparison.limits['boxes'], boxes))
    assert comparison.agrees, comparison.lines()


def effect_of_rounding(file, images):
    """Pixels by which the model's boxes of a batch differ from those of its pictures one by one.

    Of a Cascade R-CNN with random weights 0.007, which is rounding: its deltas are exponentials, twice.
    """
    of_batch = file.reference(images)['boxes']
    one_by_one = [file.reference(image[None])['boxes'] for image in images]
    return float(abs(of_batch - np.concatenate(one_by_one)).max())


@pytest.mark.parametrize('name', CONFIGS)
def test_the_batch_may_be_open(name, tmp_path):
    file = deployable(build(CONFIGS[name]))
    path = write(file, tmp_path / 'detector.onnx', SHAPE, ('batch',))
    rounding = effect_of_rounding(file, torch.from_numpy(pictures(3, 64, 96)))
    # The file rounds as much as the model does, and otherwise.
    check(file, path, [(1, (64, 96)), (3, (64, 96))], boxes=min(2 * rounding, 0.02))


def test_the_size_may_be_open(tmp_path):
    file = deployable(build(region_config(1)), pasted_masks=True)
    path = write(file, tmp_path / 'detector.onnx', SHAPE, ('batch', 'size'))
    check(file, path, [(1, (64, 96)), (2, (75, 118)), (1, (160, 64))])


@pytest.mark.parametrize(
    ('suffix', 'stages'), [('.pt2', 1), ('.aoti.pt2', 1), ('.xml', 1), ('.xml', 2)]
)
def test_other_formats_find_the_same(suffix, stages, tmp_path):
    """Mask R-CNN; and Cascade Mask R-CNN, which asks for the best class of each box, where `.xml` differs."""
    file = deployable(build(region_config(stages)))
    path = write(file, tmp_path / f'detector{suffix}', SHAPE, (), batch_size=1)
    check(file, path, [(1, (64, 96))], boxes=0.02 if stages > 1 else 0.0)


@pytest.mark.parametrize(
    'config', [region_config(2), query_config('DINO')], ids=['Cascade', 'DINO']
)
def test_int8_rounds_no_coordinates(config, tmp_path):
    """A 255th of a picture of 1333 pixels would be five of them."""
    openvino = pytest.importorskip('openvino')
    pytest.importorskip('nncf')
    file = deployable(build(config))
    calibration = torch.from_numpy(pictures(2, 64, 96)).split(1)
    path = write(
        file,
        tmp_path / 'detector.xml',
        SHAPE,
        (),
        batch_size=1,
        precision='int8',
        calibration=calibration,
    )
    rounded = {
        user.get_node().get_type_name()
        for node in openvino.Core().read_model(path).get_ops()
        if node.get_type_name() == 'FakeQuantize'
        for user in node.output(0).get_target_inputs()
    }
    assert {'Convolution', 'MatMul'} <= rounded
    assert not rounded & set(file.exact_operators)
    found = load(path)(pictures(1, 64, 96))
    assert all(np.isfinite(found[name]).all() for name in file.output_names)


@pytest.mark.parametrize('suffix', ['.onnx', '.pt2', '.aoti.pt2', '.xml'])
def test_a_picture_on_which_nothing_is_found(suffix, tmp_path):
    model = build(region_config(1))
    with torch.no_grad():
        model.roi_head.bbox_head.fc_cls.bias[-1] += 1e4  # all is background
    file = deployable(model)
    path = write(file, tmp_path / f'detector{suffix}', SHAPE, (), batch_size=1)
    found = load(path)(pictures(1, 64, 96))
    assert not found['scores'].any() and (found['labels'] == -1).all()
    assert not found['boxes'].any() and not found['masks'].any()


@pytest.mark.parametrize('pasted_masks', [False, True])
def test_a_detector_runs_where_there_is_no_torch(pasted_masks, tmp_path):
    """The script of docs/detector_files.md in an environment of NumPy, Pillow and ONNX Runtime."""
    file = deployable(build(region_config(1)), letterbox=SHAPE[1:], pasted_masks=pasted_masks)
    path = write(file, tmp_path / 'detector.onnx', SHAPE, ('size',), batch_size=1)
    (image,) = pictures(1, 150, 120)
    exif = Image.Exif()
    exif[0x0112] = 6  # as a camera that was turned writes it
    lying = Image.fromarray(image.transpose(1, 2, 0)).transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / 'picture.png', exif=exif)
    script = tmp_path / 'detect.py'
    script.write_text(*blocks_of('detector_files.md', 'python'))
    printed = subprocess.run(
        [
            environment_without_torch(tmp_path / 'environment'),
            '-I',
            *(script, path, tmp_path / 'picture.png', tmp_path / 'found.png'),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=200,
    ).stdout
    found = np.array([line.split()[1:] for line in printed.splitlines()], dtype=np.float64)
    expected = file.reference(torch.from_numpy(image[None]))
    certain = expected['scores'][0] > 0.3
    assert certain.sum() >= 5
    np.testing.assert_allclose(found[:, 0], expected['scores'][0][certain], atol=2e-3)
    np.testing.assert_allclose(found[:, 1:], expected['boxes'][0][certain], atol=0.6)
    drawn = np.asarray(Image.open(tmp_path / 'found.png')).transpose(2, 0, 1)
    assert drawn.shape == image.shape
    objects = expected['masks'][0][certain].any(0)
    coloured = (drawn != image).any(0)
    # Beside objects, outlines and names are coloured as well; the edge of a mask is a matter of rounding.
    assert coloured[objects].mean() > 0.9
