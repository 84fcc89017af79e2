"""Audio through the tools: a killed training resumes with equal losses on two processes, folds and tests."""

import json
import pickle

import pytest
from helpers import save_random_weights
from PIL import Image
from tool_runs import (
    ROOT,
    compare_losses,
    kill_and_resume,
    read_losses,
    read_scores,
    run_forked,
)

from unireplknet_mm.datasets.demo import make_demo_data

CONFIG = """
_base_ = {base!r}
arch = dict(_delete_=True, depths=(1, 1, 1, 1), channels=(8, 16, 24, 32), kernel_sizes=(3, 7, 7, 7))
model = dict(
    backbone=dict(arch=arch, layer_scale_init_value=0.5), head=dict(num_classes=4, in_channels=32)
)
data_preprocessor = dict(num_classes=4)
"""


@pytest.fixture(scope='module')
def arguments(tmp_path_factory):
    """Of a training of three epochs with two batches each, in two processes."""
    folder = tmp_path_factory.mktemp('audio runs')
    root = make_demo_data('recording_folder', folder / 'sounds', 16, 4, num_classes=4)
    config = folder / 'audio.py'
    base = ROOT / 'configs/custom/unireplknet_spoken_digits_folder.py'
    config.write_text(CONFIG.format(base=str(base)))
    settings = []
    for split, name in dict(train='train', val='val', test='val').items():
        dataset = f'{split}_dataloader.dataset'
        settings += [
            f'{dataset}.data_root={root}',
            f'{dataset}.pattern={name}/(?P<label>[^/]+)/.*',
            f'{dataset}.classes=[class_000,class_001,class_002,class_003]',
            f'{dataset}.only=None',
            f'{dataset}.without=None',
            f'{split}_dataloader.num_workers=1',
        ]
    settings += [
        # a whole recording, of which predict.py then hears as much as test.py
        'test_dataloader.dataset.pipeline.2.num_frames=100',
        'train_dataloader.batch_size=4',
        'train_cfg.max_epochs=3',
        'train_cfg.val_interval=3',
        'param_scheduler.0.end=2',
        'param_scheduler.0.start_factor=0.5',
        'param_scheduler.1.T_max=3',
        'default_hooks.logger.interval=1',
        'log_processor.window_size=1',
    ]
    return (config, '--cfg-options', *settings)


def test_a_killed_training_resumes_and_its_checkpoint_folds(tmp_path, arguments, call):
    work_dir, killed_dir = tmp_path / 'whole', tmp_path / 'killed'
    log = run_forked('train.py', *arguments, '--work-dir', work_dir, cwd=tmp_path, ranks=2)
    assert 'GPU number: 2' in log
    kill_and_resume(*arguments, work_dir=killed_dir, cwd=tmp_path, last='epoch_3.pth', ranks=2)
    compare_losses(work_dir, killed_dir, 6)

    config, *settings = arguments
    folded = tmp_path / 'folded.pth'
    call('reparameterize', config, work_dir / 'epoch_3.pth', folded)
    scores = []
    for checkpoint in (work_dir / 'epoch_3.pth', folded):
        test_dir = tmp_path / f'test of {checkpoint.stem}'
        call('test', config, checkpoint, '--work-dir', test_dir, *settings)
        scores.append(read_scores(test_dir)['accuracy/top1'])
    assert scores[0] == scores[1]


def test_predictions_of_recordings_are_those_of_a_test(tmp_path, arguments, call):
    """And a file that is no recording is named."""
    config, option, *settings = arguments
    checkpoint, out = tmp_path / 'random.pth', tmp_path / 'out'
    save_random_weights(config, checkpoint)
    dump = tmp_path / 'tested.pkl'
    call('test', config, checkpoint, '--work-dir', tmp_path, '--out', dump, option, *settings)
    tested = pickle.loads(dump.read_bytes())
    assert len(tested) == 4
    files = [sample['recording_path'] for sample in tested]
    (tmp_path / 'text.wav').write_text('no sound')
    stderr = call(
        'predict', config, checkpoint, *files, tmp_path / 'text.wav', '--out', out,
        '--top', 4, option, *settings, status=1,
    )  # fmt: skip
    document = json.loads((out / 'predictions.json').read_text())
    for record, sample in zip(document['predictions'], tested, strict=True):
        assert record['input'] == sample['recording_path']
        assert record['scores'] == sample['pred_score'][record['labels']].tolist()
        assert record['predicted'] == sample['pred_label'].tolist() == record['labels'][:1]
        with Image.open(out / record['picture']) as picture:
            assert picture.width > picture.height > 200
    (failure,) = document['failures']
    assert failure['reason'].startswith(f'recording {tmp_path / "text.wav"} cannot be read (')
    assert failure['reason'] in stderr


def test_mixed_precision(tmp_path, arguments, call):
    config, *settings = arguments
    options = [*settings, 'train_cfg.max_epochs=1', 'param_scheduler.0.end=1']
    call('train', config, '--work-dir', tmp_path, '--amp', '--device', 'cpu', *options)
    (losses,) = read_losses(tmp_path)
    assert len(losses) == 4 and all(0 < loss < 10 for loss in losses.values())
