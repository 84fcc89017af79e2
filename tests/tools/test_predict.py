"""tools/predict.py on what users give it: files of every kind, folders, damaged files, wrong weights.

That its predictions are those of tools/test.py: test_tasks.py.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import read_tree
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from tool_runs import CONFIGS

from unireplknet_mm.launch import predicting
from unireplknet_mm.modalities.images import Images
from unireplknet_mm.modalities.predictions import ClassPrediction

CONFIG = CONFIGS / 'cls_small.py'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory) -> Path:
    """Weights that decide for a class."""
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    state_dict = MODELS.build(cfg.model).state_dict()
    state_dict['head.fc.bias'][7] = 8.0
    path = tmp_path_factory.mktemp('weights') / 'classifier.pth'
    torch.save(dict(state_dict=state_dict), path)
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_image(path: Path | str, size: tuple[int, int] = (48, 40), mode: str = 'RGB') -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.fixture
def predict(call, checkpoint):
    """Runs the tool in this process; what it prints, on stderr for a `status`, and predictions.json."""

    def predict(*arguments, status: int = 0, config=CONFIG, checkpoint=checkpoint):
        printed = call('predict', config, checkpoint, *arguments, '--out', 'out', status=status)
        results = Path('out', 'predictions.json')
        return printed, json.loads(results.read_text()) if results.exists() else None

    return predict


def test_one_image(predict, folder):
    image = write_image('some street.jpg')
    printed, document = predict(image, '--top', 2)
    (record,) = document.pop('predictions')
    assert record['input'] == str(image)
    assert record['picture'] == 'pictures/some street.jpg'
    assert record['predicted'] == [7]
    assert record['classes'][0] == 'cock'
    assert len(record['labels']) == len(record['scores']) == 2
    assert record['scores'][0] > 0.5 > record['scores'][1]
    assert printed.startswith(f'some street.jpg: cock {record["scores"][0]:.3f}; ')
    assert printed.count(';') == 1 and printed.count('\n') == 1
    assert document.pop('classes')[7] == 'cock'
    assert document.pop('checkpoint').endswith('classifier.pth')
    assert document == dict(config=str(CONFIG), deploy=False, complete=True, failures=[])
    with Image.open(folder / 'out' / record['picture']) as picture:
        assert picture.size == (307, 256)  # small ones are enlarged, so that they can be read


def test_damaged_files_are_reported_and_the_others_predicted(predict, folder):
    whole = write_image('a.jpg', (200, 200))
    content = whole.read_bytes()
    Path('b.jpg').write_bytes(content[: len(content) // 2])
    Path('c.jpg').write_bytes(b'')
    Path('d.jpg').write_bytes(b'no image')
    Path('e.jpg').symlink_to('nowhere.jpg')
    os.mkfifo('f.jpg')
    Path('notes.txt').write_text('nothing')
    Path('.hidden.jpg').write_text('nothing')
    write_image('z.png')
    stderr, document = predict(folder, status=1)
    failures = {Path(entry['input']).name: entry['reason'] for entry in document['failures']}
    assert failures.pop('d.jpg').startswith('LoadImageFromFile fails on it: ')
    assert failures.pop('b.jpg').startswith('it cannot be read: image file is truncated (')
    assert failures == {
        'c.jpg': 'the file is empty',
        'e.jpg': 'it leads to nothing',
        'f.jpg': 'it is no file',
    }
    assert [Path(entry['input']).name for entry in document['predictions']] == ['a.jpg', 'z.png']
    assert document['complete']
    assert f'1 file(s) skipped that are no images: {folder / "notes.txt"}\n' in stderr
    assert f'error: {folder / "c.jpg"}: the file is empty\n' in stderr
    assert stderr.endswith('5 of 7 inputs failed.\n')


def test_names_that_collide(predict, folder):
    """In the folders of several arguments, and by case alone, for file systems that do not tell it."""
    paths = ['one/x.jpg', 'one/x.png', 'one/sub/y.jpg', 'two/X.jpg', 'two/sub/y.bmp']
    for path in paths:
        write_image(path)
    printed, document = predict('one', 'two', 'one/x.jpg', '--recursive')
    pictures = {entry['input']: entry['picture'] for entry in document['predictions']}
    assert pictures == {
        'one/x.jpg': 'pictures/x.jpg',
        'one/x.png': 'pictures/x_2.jpg',
        'one/sub/y.jpg': 'pictures/sub/y.jpg',
        'two/X.jpg': 'pictures/X_3.jpg',
        'two/sub/y.bmp': 'pictures/sub/y_2.jpg',
    }
    assert len(printed.splitlines()) == 5
    assert len(read_tree(folder / 'out')) == 7  # with the results and a marker
    before = read_tree(folder)
    printed, document = predict('.', '--recursive')  # the results of the first are no inputs
    assert len(document['predictions']) == 5
    assert read_tree(folder).keys() == before.keys() | {
        f'out/pictures/{path[:-4]}.jpg' for path in paths if path != 'one/x.png'
    } | {'out/pictures/one/x_2.jpg'}


def test_nothing_that_no_prediction_made_is_replaced(predict, folder):
    for other in ('out/pictures/x.jpg', 'out/predictions.json'):
        path = write_image('out/pictures/x.jpg')
        if other.endswith('json'):
            path.unlink()
            Path(other).write_text('{}')
        write_image('x.jpg')
        before = read_tree(folder)
        stderr, _ = predict('x.jpg', status=1)
        assert stderr.endswith(
            f'error: {Path(other).parent if "x.jpg" in other else other} is there, and was not made by '
            'predict.py: nothing is replaced.\nChoose another folder with --out.\n'
        )
        assert read_tree(folder) == before


def test_a_picture_that_cannot_be_drawn(predict, folder, monkeypatch):
    """The prediction counts all the same."""

    def fail(*arguments):
        raise ValueError('no colour left')

    monkeypatch.setattr(Images, 'draw', fail)
    write_image('x.jpg')
    stderr, document = predict('.', status=1)
    (record,), (failure,) = document['predictions'], document['failures']
    assert record['picture'] is None and record['scores']
    reason = failure['reason']
    assert reason.startswith(
        'it cannot be drawn: ValueError: no colour left (test_predict.py, line '
    )
    assert f'.jpg: {reason}\n' in stderr
    assert stderr.endswith('\n1 of 1 inputs failed.\n')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['https://host/x.jpg'],
            'https://host/x.jpg is an address: download the file and give its path.',
        ),
        (['missing.jpg'], 'missing.jpg does not exist: name files or folders of images.'),
        (
            ['empty'],
            'there are no images (.jpg, .jpeg, .png, .bmp, .webp, .tif, .tiff, .ppm, .pgm) in empty.\n'
            '--recursive searches the 1 folder(s) in it too.',
        ),
        (['x.jpg', '--show'], '--show: there is no display here; --out DIR writes the pictures.'),
        (
            ['x.jpg', '--cfg-options', 'test_dataloader.dataset.pipeline=[]'],
            'the test data set of {config} has no pipeline to read files with.',
        ),
    ],
)
def test_mistakes(predict, folder, monkeypatch, arguments, message):
    for variable in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(variable, raising=False)
    write_image('x.jpg')
    write_image('empty/sub/x.jpg')
    before = read_tree(folder)
    stderr, _ = predict(*arguments, status=1)
    assert stderr.rpartition('error: ')[2] == message.format(config=CONFIG) + '\n'
    assert read_tree(folder) == before


def test_ctrl_c_writes_what_there_is(predict, monkeypatch):
    ask = predicting.Predictor.__call__

    def interrupted(self, dataset):
        yield next(ask(self, dataset))
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting.Predictor, '__call__', interrupted)
    write_image('x.jpg')
    write_image('y.jpg')
    _, document = predict('x.jpg', 'y.jpg', status=130)
    assert not document['complete']
    assert [entry['input'] for entry in document['predictions']] == ['x.jpg']


def test_a_pipeline_that_reads_something_else(predict):
    write_image('x.jpg')
    option = 'test_dataloader.dataset.pipeline.0.type=LoadPoems'
    stderr, _ = predict('x.jpg', '--cfg-options', option, status=1)
    assert stderr.startswith('error: the test pipeline of the config begins with LoadPoems; ')
    assert 'images (LoadImageFromFile, ' in stderr


def test_weights_that_are_none(predict, checkpoint, folder):
    write_image('x.jpg')
    content = torch.load(checkpoint)
    weights = content['state_dict']
    torch.save({name: weight for name, weight in weights.items() if 'backbone' in name}, 'body.pth')
    stderr, _ = predict('x.jpg', checkpoint='body.pth', status=1)
    assert (
        'error: checkpoint body.pth: there are weights for the backbone only, none for head '
        in stderr
    )
    weights['head.fc.weight'][3, 3] = torch.nan
    torch.save(content, 'nan.pth')
    stderr, _ = predict('x.jpg', checkpoint='nan.pth', status=1)
    assert stderr.rpartition('error: ')[2] == (
        'checkpoint nan.pth: head.fc.weight has values that are not finite (NaN or infinite): its training '
        'went wrong, take an earlier checkpoint.\n'
    )
    assert not Path('out', 'predictions.json').exists()


def test_names_of_classes(checkpoint):
    """Of the checkpoint, else the config, else the data set; those of another number are not of this head."""
    cfg = Config.fromfile(CONFIG)
    init_default_scope(cfg.default_scope)
    own, others = ([f'{kind} {i}' for i in range(1000)] for kind in ('own', 'other'))

    def find(**meta):
        names = predicting.find_labels(cfg, meta).names
        return names and names[7]

    assert find() == 'cock'
    assert find(CLASSES=tuple(own), PALETTE=None) == 'own 7'
    assert find(dataset_meta=dict(classes=own)) == 'own 7'
    assert find(dataset_meta=dict(classes=own[:10])) == 'cock'
    cfg.test_dataloader.dataset.metainfo = dict(classes=others)
    assert find() == 'other 7'
    assert find(dataset_meta=dict(CLASSES=own)) == 'own 7'
    cfg.test_dataloader.dataset.metainfo = dict(classes=others[:10])
    cfg.test_dataloader.dataset.type = 'CustomDataset'
    assert find() is None


def test_grey_16_bit_and_transparent_images(predict, folder):
    write_image(f'{"long" * 62}.png', mode='L')
    write_image('transparent.png', mode='RGBA')
    write_image('palette.png', mode='P')
    write_image('cmyk.jpg', mode='CMYK')
    Image.fromarray(np.full((40, 48), 60000, np.uint16)).save('deep.png')
    if sys.platform == 'linux':  # where names may be any bytes
        Path('palette.png').rename(os.fsdecode(b'\xff.png'))
    printed, document = predict('.')
    assert len(document['predictions']) == 5
    assert sys.platform != 'linux' or '\n\\udcff.png: cock 0.' in printed


def test_images_of_several_sizes_in_a_batch(call, checkpoint, folder):
    """Without a crop; each is predicted as if it were alone."""
    for index, size in enumerate([(48, 40), (48, 40), (40, 48), (64, 64)]):
        write_image(f'{index}.png', size)
    config = folder / 'uncropped.py'
    steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\ntest_dataloader = dict(dataset=dict(pipeline={steps}))\n'
    )
    scores = {}
    for size in (1, 4):
        call('predict', config, checkpoint, '.', '--batch-size', size, '--out', f'by {size}')
        document = json.loads(Path(f'by {size}', 'predictions.json').read_text())
        scores[size] = torch.tensor([entry['scores'] for entry in document['predictions']])
    assert scores[1].shape == (4, 5)
    torch.testing.assert_close(scores[4], scores[1])


def test_a_model_that_fails_on_one_input(checkpoint, folder):
    """The others of its batch are predicted all the same."""
    cfg = Config.fromfile(CONFIG)
    paths = [write_image(f'{index}.png') for index in range(4)]
    cfg.test_dataloader.num_workers = 2
    model, _ = predicting.load_model(cfg, str(checkpoint), deploy=False)
    dataset = predicting.InputDataset(paths, Images(), predicting.test_pipeline(cfg), cfg)
    step = model.test_step

    def refuse_one(batch):
        if any(sample.img_path == '2.png' for sample in batch['data_samples']):
            raise RuntimeError('no')
        return step(batch)

    model.test_step = refuse_one
    *results, failure, last = predicting.Predictor(model, cfg, 4)(dataset)
    assert failure.path == paths[2]
    assert failure.reason.startswith(
        'the model fails on it: RuntimeError: no (test_predict.py, line '
    )
    for result in (*results, last):
        prediction = predicting.read_result(result, predicting.Labels(), None, None)
        assert isinstance(prediction, ClassPrediction)
        assert prediction.line().startswith('7 0.')
    results[0].sample.pred_score[5] = torch.nan
    failure = predicting.read_result(results[0], predicting.Labels(), None, None)
    assert failure.reason == "the model's scores are not finite (NaN or infinite)"
