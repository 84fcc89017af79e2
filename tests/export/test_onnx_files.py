"""ONNX files of a model of each task, run by ONNX Runtime beside the toolbox's own code."""

import copy
import re
import shutil

import numpy as np
import pytest
import torch
from file_models import (
    SMALL,
    agreement,
    build,
    change_weights,
    check_restating,
    function_of,
    write,
)

from unireplknet_mm.export import FORMATS, ExportError, Runtime, deployable, load
from unireplknet_mm.launch import exporting

onnx = pytest.importorskip('onnx', reason='no onnx package')
pytest.importorskip('onnxscript', reason='no onnxscript package')
pytest.importorskip('onnxruntime', reason='no onnxruntime package')

# Batches and sizes that the file was not recorded with.
OTHERS = dict(
    classifier=[(3, 3, 64, 64), (1, 3, 101, 75)],
    segmenter=[(3, 3, 64, 96), (1, 3, 101, 75)],
    videos=[(3, 4, 3, 32, 32), (1, 4, 3, 32, 32)],
    points=[(3, 64, 3)],
    series=[(3, 24, 3), (1, 24, 3)],
)


@pytest.fixture(scope='module', params=SMALL)
def written(request, tmp_path_factory):
    """The name of a task, its function, and the file with everything open that may be."""
    name = request.param
    if name == 'videos':
        pytest.importorskip('av', reason='no PyAV, which the configs of videos import')
    if name == 'points':
        pytest.importorskip('h5py', reason='no h5py, which the configs of point clouds import')
    if name == 'series':
        pytest.importorskip('pandas', reason='no pandas, which the configs of series import')
    _, shape, dynamic = SMALL[name]
    function = function_of(name)
    path = write(function, tmp_path_factory.mktemp('files') / 'model.onnx', shape, dynamic)
    return name, function, path


def test_the_file_agrees_with_the_toolbox(written):
    name, function, path = written
    shape = SMALL[name][1]
    comparison = agreement(function, load(path), [(2, *shape), *OTHERS[name]])
    assert comparison.agrees, comparison.lines()
    assert comparison.count == 1 + len(OTHERS[name])
    assert set(comparison.largest) == set(function.limits('fp32'))


def test_a_file_of_other_weights_disagrees(written):
    name, function, path = written
    other = copy.deepcopy(function)
    change_weights(other.model)
    assert not agreement(other, load(path), [(2, *SMALL[name][1])]).agrees


def test_the_file_holds_operators_of_the_standard_alone(written):
    _, function, path = written
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'}
    assert not model.functions
    assert [one.version for one in model.opset_import if one.domain == ''] == [18]
    assert [output.name for output in model.graph.output] == list(function.output_names)


def test_the_file_says_what_it_is(written):
    _, function, path = written
    metadata = load(path).metadata
    assert metadata['classes'] == ['a', 'b']
    assert metadata['task'] == function.task
    assert metadata['input']['name'] == function.input_name
    assert metadata['input']['shape'][0] is None
    assert list(metadata['outputs']) == list(function.output_names)


def test_a_file_may_say_more(written, tmp_path):
    _, function, path = written
    check_restating(shutil.copy(path, tmp_path), function.example(2, SMALL[written[0]][1]))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda x: x[0], 'the file takes {name} of (any, '),
        (lambda x: x.astype('float64'), 'in float64'),
        (lambda x: x[:, :1], 'not of (2, 1, '),
    ],
    ids=['no batch', 'another type', 'another size'],
)
def test_an_input_that_does_not_fit_is_refused_in_two_lines(written, change, message):
    name, function, path = written
    inputs = function.example(2, SMALL[name][1]).numpy()
    with pytest.raises(
        ExportError, match=re.escape(message.format(name=function.input_name))
    ) as error:
        load(path)(change(inputs))
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ('shape', 'way_out'),
    [([None, 3, None, None], 'without --dynamic batch,size'), ([1, 3, 4, 4], '')],
)
def test_an_input_on_which_a_runtime_fails_is_said_in_two_lines(shape, way_out):
    def fail(inputs):
        raise ValueError('[ONNXRuntimeError] : 1 : FAIL : node_Reshape_578\nand more')

    stated = dict(name='images', shape=shape, dtype='uint8')
    with pytest.raises(ExportError, match=r'does not run on an input of 1×3×4×4: .*_578') as error:
        Runtime(dict(input=stated), fail)(np.zeros((1, 3, 4, 4), dtype=np.uint8))
    assert way_out in str(error.value)
    assert len(str(error.value).splitlines()) == (2 if way_out else 1)


def test_a_truncated_file_is_refused_in_two_lines(written, tmp_path):
    content = written[2].read_bytes()
    path = tmp_path / 'cut.onnx'
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match='damaged') as error:
        load(path)
    assert len(str(error.value).splitlines()) <= 2


def test_a_file_of_many_channels_takes_what_its_pipeline_gives(tmp_path):
    """Satellites measure in 16 bits; loaders give floats."""
    function = deployable(
        build(
            'classifier',
            backbone=dict(in_channels=5),
            data_preprocessor=dict(mean=[4000.0] * 5, std=[900.0] * 5),
        )
    )
    generator = torch.Generator().manual_seed(0)
    samples = [
        (str(index), function.from_pipeline(torch.rand(5, 32, 32, generator=generator) * 9000))
        for index in range(2)
    ]
    path = tmp_path / 'model.onnx'
    order = exporting.Order(FORMATS['onnx'], 'fp32', (), path, (5, 32, 32))
    steps = exporting.Steps(lambda line: None)
    exporting.write(function, order, dict(versions={}), samples, [], steps)
    described = load(path).metadata['input']
    assert described['dtype'] == 'float32'
    assert described['values'].startswith('as the test pipeline gives them')


def test_a_backbone_alone_agrees(tmp_path):
    model = function_of('segmenter').model
    function = deployable(model.backbone, preprocessor=model.data_preprocessor)
    assert function.output_names == ('stage0', 'stage1', 'stage2', 'stage3')
    path = write(function, tmp_path / 'backbone.onnx', (3, 64, 64), ('size',), batch_size=1)
    comparison = agreement(function, load(path), [(1, 3, 64, 64), (1, 3, 97, 71)])
    assert comparison.agrees, comparison.lines()
