"""Every model of configs/audio: shapes, parameters, gradients; axes, summed stem, mixup, several crops."""

import copy
import functools
import json
from pathlib import Path

import pytest
import torch
from helpers import SMALL_ARCH, load_config, randomise, save
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import METRICS, MODELS, TRANSFORMS, DefaultScope
from mmengine.utils import import_modules_from_strings
from mmpretrain.structures import DataSample
from modality_configs import millions
from tones import RATE
from torch.utils.flop_counter import FlopCounterMode

from unireplknet_mm.configuration import find_dicts
from unireplknet_mm.errors import ArgumentError, UserError
from unireplknet_mm.launch.folding import build_model
from unireplknet_mm.modalities.audio import SpectrogramMap
from unireplknet_mm.models import UniRepLKNet
from unireplknet_mm.models.whole_model import on_meta as building_on_meta

ROOT = Path(__file__).resolve().parents[3]
LEAVES = sorted(path.stem for path in (ROOT / 'configs/audio').glob('*.py'))
MODELS_ON_META: dict[str, torch.nn.Module] = {}
SPEECH, AUDIOSET = 'unireplknet_s_speech_commands', 'unireplknet_s_audioset'


def load(name: str):
    cfg = load_config(ROOT / f'configs/audio/{name}.py')
    import_modules_from_strings(**cfg.custom_imports)
    return cfg


@functools.cache
def on_meta(name: str):
    """The model of a config, built once for all configs of the same one."""
    cfg = load(name)
    for config in find_dicts(cfg.model.backbone):
        config.pop('init_cfg', None)
    key = json.dumps(cfg.model.to_dict(), sort_keys=True)
    if key not in MODELS_ON_META:
        MODELS_ON_META[key] = build_on_meta(cfg)
    return MODELS_ON_META[key]


def build_on_meta(cfg):
    with DefaultScope.overwrite_default_scope('mmpretrain'), building_on_meta():
        return MODELS.build(cfg.model)


def small(name: str, **backbone):
    """The config's model, with a backbone that runs in no time."""
    cfg = load(name)
    cfg.model.backbone.update(arch=SMALL_ARCH, drop_path_rate=0.0, **backbone)
    cfg.model.head.in_channels = SMALL_ARCH['channels'][-1]
    cfg.model.data_preprocessor = cfg.data_preprocessor
    return cfg


@pytest.mark.parametrize('name', LEAVES)
def test_a_sample_of_the_stated_shape_goes_through_and_back(name):
    cfg, model = load(name), on_meta(name).train()
    fitted = [step for step in find_dicts(cfg.test_dataloader) if step.get('type') == 'FitFrames']
    bank = next(step for step in find_dicts(cfg.test_dataloader) if step.get('type') == 'LogMel')
    assert cfg.input_shape == (fitted[0].num_frames, bank.get('num_bins', 128))
    inputs = torch.empty(2, *cfg.input_shape, device='meta')
    assert model.embed(inputs).shape == (2, 1, *cfg.input_shape)
    logits = model(inputs)
    assert logits.shape == (2, cfg.model.head.num_classes)
    logits.sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    model.zero_grad()


def test_parameters_and_flops():
    """The paper states 55.5 M; its published code has UniRepLKNet-S, whose backbone alone is larger."""
    with torch.device('meta'):
        colour = UniRepLKNet('s', out_indices=(3,), gap_before_final_norm=True)
        assert millions(colour) == pytest.approx(55.69, abs=0.005)
        colour.switch_to_deploy()
    assert millions(colour) == pytest.approx(54.88, abs=0.005)
    model = copy.deepcopy(on_meta(SPEECH)).eval()
    assert millions(model.embedding) == 0
    stem = 2 * 9 * 48 / 1e6  # two of three input channels
    head = (768 + 1) * 35 / 1e6
    assert millions(model) == pytest.approx(55.69 - stem + head, abs=0.005)
    assert millions(on_meta(AUDIOSET)) == pytest.approx(56.09, abs=0.005)  # docs/audio.md
    model.backbone.switch_to_deploy()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.empty(1, 128, 128, device='meta'))
    assert counter.get_total_flops() / 2e9 == pytest.approx(2.97, abs=0.01)


def test_the_networks_of_table_11():
    kinds = {name: on_meta(name).backbone for name in LEAVES if name.startswith('table_11')}
    convnext, resnet, k11, k13 = (millions(kinds[name]) for name in sorted(kinds))
    assert resnet == pytest.approx(42.49, abs=0.02) and convnext == pytest.approx(49.45, abs=0.02)
    assert k11 < k13 == pytest.approx(millions(on_meta(SPEECH).backbone))
    kernels = [kinds[name].arch_settings['kernel_sizes'] for name in sorted(kinds)[2:]]
    assert [max(max(stage) for stage in of_one) for of_one in kernels] == [11, 13]


def test_axes():
    x = torch.randn(2, 5, 3)
    assert torch.equal(SpectrogramMap()(x), x[:, None])
    assert torch.equal(SpectrogramMap('freq_time')(x), x.transpose(1, 2)[:, None])
    with pytest.raises(UserError, match='time_freq or freq_time'):
        SpectrogramMap('time')


def test_the_summed_stem_is_exact_for_equal_channels(tmp_path):
    colour = randomise(UniRepLKNet('a', out_indices=(3,), gap_before_final_norm=True)).eval()
    weights = colour.state_dict()
    path = str(save(tmp_path / 'a.pth', dict(model=weights)))
    init_cfg = dict(type='Pretrained', checkpoint=path, sum_input_channels=True)
    settings = dict(arch='a', out_indices=(3,), gap_before_final_norm=True)
    grey = UniRepLKNet(in_channels=1, init_cfg=init_cfg, **settings)
    grey.init_weights()
    x = torch.randn(1, 1, 64, 48)
    with torch.no_grad():
        assert torch.allclose(grey.eval()(x)[0], colour(x.expand(-1, 3, -1, -1))[0], atol=1e-5)
    with pytest.raises(UserError, match='in_channels=1, this one has 3'):
        UniRepLKNet(init_cfg=init_cfg, **settings).init_weights()
    init_cfg.pop('sum_input_channels')
    with pytest.raises(UserError, match='do not match'):
        UniRepLKNet(in_channels=1, init_cfg=init_cfg, **settings).init_weights()


def labelled(label: int | list[int]) -> DataSample:
    return DataSample().set_gt_label(label)


@pytest.mark.parametrize(
    ('name', 'mixup', 'noise'),
    [
        (SPEECH, [0.6], ['RandomSpectrogramNoise', 'RandomRoll']),
        (AUDIOSET, [0.5], ['RandomSpectrogramNoise']),
        ('unireplknet_s_in1k_audioset', [0.5], []),
        ('unireplknet_s_in1k_esc50', None, []),
    ],
)
def test_augmentation_is_that_of_ast(name, mixup, noise):
    """As its run scripts have it, but for the noise of the AudioSet training from scratch."""
    cfg = load(name)
    assert (cfg.model.train_cfg and cfg.model.train_cfg.probs) == mixup
    steps = cfg.train_dataloader.dataset.pipeline
    masks = ['MaskFrequencies', 'MaskFrames']
    expected = ['LoadRecording', 'LogMel', 'FitFrames', *masks, *noise, 'PackRecording']
    assert [step.type for step in steps] == expected
    assert 'position' not in steps[2]  # cut and padded at the end


TESTED_ON_ALL = [AUDIOSET, 'unireplknet_s_speech_commands', 'unireplknet_s_in1k_esc50']


@pytest.mark.parametrize('name', TESTED_ON_ALL)
def test_in_tests_a_damaged_recording_counts_as_silence(name, recordings, tmp_path):
    cfg = load(name)
    path = recordings / 'unknown.wav'
    label = [3, 5] if name == AUDIOSET else 3
    sample = dict(recording_path=str(path), sample_idx=0)
    for pipeline in (cfg.test_dataloader.dataset.pipeline, cfg.tta_pipeline):
        cached = dict(type='Cached', folder=str(tmp_path), transforms=pipeline[:1])
        for loader in (pipeline[0], cached):
            load_it = TRANSFORMS.build(loader)
            heard = load_it({**sample, 'gt_label': label})
            assert heard['waveform'].shape == (RATE,) and not heard['waveform'].any()
            with pytest.raises(UserError, match=r'unknown\.wav'):
                load_it(sample)  # as for predict.py
    packed = Compose(cfg.test_dataloader.dataset.pipeline)({**sample, 'gt_label': label})
    assert packed['inputs'].isfinite().all()
    good = dict(sample, recording_path=str(recordings / 'plain.wav'), gt_label=label)
    heard = Compose(cfg.test_dataloader.dataset.pipeline)(good)
    metric = METRICS.build(dict(cfg.val_evaluator[1], most=0.5))
    samples = [packed['data_samples'].to_dict(), heard['data_samples'].to_dict()]
    metric.process(None, samples)
    assert metric.evaluate(2) == {'replaced/recordings': 1}
    metric.process(None, samples[:1] * 2 + samples[1:])
    with pytest.raises(UserError, match='2 of the 3 recordings could not be used'):
        metric.evaluate(3)
    with pytest.raises(ArgumentError, match='a share'):
        METRICS.build(dict(cfg.val_evaluator[1], most=5))


def test_labels_of_a_damaged_recording_stay(recordings):
    cfg = load(AUDIOSET)
    sample = dict(recording_path=str(recordings / 'unknown.wav'), gt_label=[3, 5])
    packed = Compose(cfg.test_dataloader.dataset.pipeline)(sample)
    assert packed['data_samples'].gt_score.sum() == 2


def test_mixup_of_one_label_and_its_loss():
    torch.manual_seed(0)
    cfg = small(SPEECH)
    cfg.model.train_cfg.probs = [1.0]
    model = build_model(cfg).train()
    spectrograms = list(torch.randn(4, 128, 128))
    data = dict(inputs=spectrograms, data_samples=[labelled(i) for i in range(4)])
    mixed = model.data_preprocessor(data, training=True)
    assert mixed['inputs'].shape == (4, 128, 128)
    scores = torch.stack([sample.gt_score for sample in mixed['data_samples']])
    assert torch.allclose(scores.sum(1), torch.ones(4))
    inside = scores[(scores > 0) & (scores < 1)]
    assert len(inside) and (inside > 0.1).all() and (inside < 0.9).all()
    loss = model.loss(**mixed)['loss']
    logits = model(mixed['inputs'])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, scores)
    assert loss.item() == pytest.approx(35 * expected.item(), rel=1e-4)


def test_several_labels_learn_and_are_measured():
    cfg = small(AUDIOSET)
    model = build_model(cfg).train()
    data = dict(
        inputs=list(torch.randn(2, 64, 128)), data_samples=[labelled([1, 5]), labelled([526])]
    )
    mixed = model.data_preprocessor(data, training=True)
    scores = torch.stack([sample.gt_score for sample in mixed['data_samples']])
    assert scores.sum() == pytest.approx(3)
    model.loss(**mixed)['loss'].backward()
    assert model.backbone.downsample_layers[0][0].weight.grad.abs().sum() > 0
    model.eval()
    predicted = model.predict(mixed['inputs'], mixed['data_samples'])
    expected = model(mixed['inputs'])[0].sigmoid()  # a row alone may be rounded in another way
    torch.testing.assert_close(predicted[0].pred_score, expected)


def test_mean_average_precision_is_that_of_the_definition():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(30, 4, generator=generator)
    truth = torch.rand(30, 4, generator=generator) < 0.3
    precisions = []
    for score, true in zip(scores.T, truth.T, strict=True):
        ranked = true[score.argsort(descending=True)]
        hits = ranked.cumsum(0)[ranked]
        precisions.append((hits / (ranked.nonzero()[:, 0] + 1)).mean().item())
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        metric = METRICS.build(dict(load(AUDIOSET).val_evaluator[0]))
    samples = [
        dict(pred_score=score, gt_score=true.float())
        for score, true in zip(scores, truth, strict=True)
    ]
    metric.process(None, samples)
    measured = metric.evaluate(30)['multi-label/mAP']
    assert measured == pytest.approx(100 * sum(precisions) / 4, abs=1e-3)


def test_crops_of_a_long_recording_are_averaged(tmp_path):
    import numpy as np
    import soundfile

    cfg = small('unireplknet_s_in1k_esc50')
    cfg.model.backbone.init_cfg = None
    noise = 0.1 * np.random.default_rng(0).standard_normal(9 * RATE)
    soundfile.write(tmp_path / 'long.wav', noise.astype(np.float32), RATE)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = randomise(MODELS.build(dict(cfg.tta_model, module=cfg.model))).eval()
        sample = Compose(cfg.tta_pipeline)(
            dict(recording_path=str(tmp_path / 'long.wav'), gt_label=3)
        )
    assert len(sample['inputs']) == 3
    assert not torch.equal(sample['inputs'][0], sample['inputs'][2])
    with torch.no_grad():
        (merged,) = model.test_step(pseudo_collate([sample]))
        scores = [model.module(x[None]).softmax(1)[0] for x in sample['inputs']]
    assert torch.allclose(merged.pred_score, sum(scores) / 3, atol=1e-6)
    assert merged.gt_label.tolist() == [3]
