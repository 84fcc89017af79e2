"""The tools on a model that no toolbox knows: its UniRepLKNets sit elsewhere and take other channels."""

import pytest
import torch
from helpers import randomise
from mmengine.config import Config
from mmengine.registry import MODELS
from tool_runs import CONFIGS, read_scores

CONFIG = CONFIGS / 'two_encoders.py'
ENCODERS = ('net.image_encoder', 'net.depth_encoder')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(folder):
    """Weights for which a wrong folding of either encoder shows."""
    Config.fromfile(CONFIG)  # registers the model
    model = randomise(MODELS.build(Config.fromfile(CONFIG).model))
    path = folder / 'trained.pth'
    torch.save(dict(meta=dict(epoch=1), message_hub={}, state_dict=model.state_dict()), path)
    return path


@pytest.fixture
def score(call, folder):
    """Runs test.py and reads the metric from the file that it leaves."""

    def score(checkpoint, *options):
        call('test', CONFIG, checkpoint, '--work-dir', 'work', *options)
        return read_scores(folder / 'work')['logit_norm']

    return score


def test_training_decays_the_layers_of_both_encoders(call, folder):
    call('train', CONFIG, '--work-dir', 'work')
    checkpoint = torch.load(folder / 'work' / 'epoch_1.pth', weights_only=False)
    rates = {
        name: group['lr_scale']
        for group in checkpoint['optimizer']['param_groups']
        for name in group['param_names']
    }
    for encoder in ENCODERS:
        assert rates[f'{encoder}.downsample_layers.0.0.weight'] == 0.5**13
        assert rates[f'{encoder}.stages.0.0.gamma'] == 0.5**12
        assert rates[f'{encoder}.stages.3.0.gamma'] == 0.5
        assert rates[f'{encoder}.norm3.weight'] == 1
    assert rates['classifier.weight'] == 1


def test_both_encoders_are_folded(call, folder, checkpoint, score):
    output = call('reparameterize', CONFIG, checkpoint, 'deploy.pth')
    assert output.startswith('Wrote deploy.pth: 0.1 M parameters. On a random input the features ')
    folded = torch.load('deploy.pth')
    assert folded['meta'] == dict(epoch=1, deploy=True)
    assert not any('running_var' in name for name in folded['state_dict'])
    for encoder in ENCODERS:
        assert f'{encoder}.stages.1.0.dwconv.lk_origin.bias' in folded['state_dict']

    expected = score(checkpoint)
    for options in ((checkpoint, '--deploy'), ('deploy.pth',), ('deploy.pth', '--deploy')):
        assert score(*options) == pytest.approx(expected, rel=1e-4)


def test_a_wrong_folding_of_the_second_encoder_is_not_written(
    call, folder, checkpoint, monkeypatch
):
    from unireplknet_mm.models import reparameterize

    calls = []
    fold = reparameterize.fold_output_scale

    def fold_wrongly_at_the_end(weight, bias, scale):
        calls.append(scale)  # once a block
        return fold(weight, bias, scale * 2 if len(calls) == 12 else scale)

    monkeypatch.setattr(reparameterize, 'fold_output_scale', fold_wrongly_at_the_end)
    message = call('reparameterize', CONFIG, checkpoint, 'deploy.pth', status=1)
    assert len(calls) == 12
    assert 'when the model is folded, more than 1e-03.\nNothing was written.' in message
    assert not (folder / 'deploy.pth').exists()


def test_weights_of_one_encoder_alone_are_refused(call, folder, checkpoint):
    content = torch.load(checkpoint)
    one = {name: value for name, value in content['state_dict'].items() if 'image' in name}
    torch.save(dict(content, state_dict=one), checkpoint)
    message = call('test', CONFIG, checkpoint, '--work-dir', 'work', status=1)
    assert message.rpartition('error: ')[2] == (
        f"checkpoint {checkpoint}: the weights have their UniRepLKNet under 'net.image_encoder.', the "
        "model under 'net.depth_encoder.'\n"
    )


def test_weights_of_the_encoders_alone_are_refused(call, folder, checkpoint):
    content = torch.load(checkpoint)
    for name in ('classifier.weight', 'classifier.bias'):
        del content['state_dict'][name]
    torch.save(content, checkpoint)
    message = call('test', CONFIG, checkpoint, '--work-dir', 'work', status=1)
    assert message.rpartition('error: ')[2] == (
        f'checkpoint {checkpoint}: there are weights for the backbone only, none for classifier '
        'of the TwoEncoders: test a trained one; pretrained weights belong in the init_cfg of the '
        'backbone\n'
    )


def test_counting(call, folder):
    lines = call('get_flops', CONFIG, '--train-form').splitlines()
    assert lines[0] == f'{CONFIG}, training form, 40x48'
    rows = [line.split('  ')[0] for line in lines[2:6]]
    assert rows == [*ENCODERS, 'the rest', 'whole']
    model = MODELS.build(Config.fromfile(CONFIG).model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f'{parameters / 1e6:.2f} M' in lines[5]
