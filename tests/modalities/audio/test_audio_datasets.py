"""The data sets of audio, on folders and lists that a test writes."""

import collections

import numpy as np
import pytest
import soundfile
from mmengine.registry import DATASETS
from tones import RATE, tone

from unireplknet_mm.datasets.layouts.speech_commands import COMMANDS, WORDS
from unireplknet_mm.errors import UserError
from unireplknet_mm.modalities.audio import (
    AudioSet,
    BalancedSampler,
    RecordingFolder,
    SpeechCommands,
)

PATTERN = r'(?P<label>\d)_(?P<speaker>\w+)_(?P<number>\d+)\.wav'


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """Two digits of two speakers, three times, and what is no recording."""
    root = tmp_path_factory.mktemp('digits')
    for digit in (0, 7):
        for speaker in ('ada', 'bo'):
            for number in range(3):
                soundfile.write(root / f'{digit}_{speaker}_{number}.wav', tone(0.01), RATE)
    (root / 'README.md').write_text('no recording')
    soundfile.write(root / 'noise.wav', tone(0.01), RATE)
    return root


def names(dataset) -> set[str]:
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return {info['recording_path'].rpartition('/')[2] for info in infos}


def test_folder_with_a_pattern(digits):
    whole = RecordingFolder(str(digits), pattern=PATTERN)
    assert len(whole) == 12 and whole.metainfo['classes'] == ('0', '7')
    for i in range(12):
        info = whole.get_data_info(i)
        assert f'/{whole.metainfo["classes"][info["gt_label"]]}_' in info['recording_path']
    test = RecordingFolder(str(digits), pattern=PATTERN, only=dict(number=[0]))
    train = RecordingFolder(str(digits), pattern=PATTERN, without=dict(number=[0]))
    assert names(test) == {f'{d}_{s}_0.wav' for d in (0, 7) for s in ('ada', 'bo')}
    assert names(test) | names(train) == names(whole) and not names(test) & names(train)
    stranger = RecordingFolder(
        str(digits), pattern=PATTERN, only=dict(speaker='bo'), without=dict(number=[1, 2])
    )
    assert names(stranger) == {'0_bo_0.wav', '7_bo_0.wav'}


def test_parts_of_a_folder_number_the_classes_alike(digits):
    sevens = RecordingFolder(str(digits), pattern=PATTERN, only=dict(label=[7]))
    assert sevens.metainfo['classes'] == ('0', '7')
    assert {sevens.get_data_info(i)['gt_label'] for i in range(len(sevens))} == {1}


def test_a_folder_a_class(tmp_path):
    for name in ('dog/a.wav', 'cat/deep/b.flac', 'cat/c.WAV'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(0.01), RATE)
    dataset = DATASETS.build(dict(type='RecordingFolder', data_root=f'{tmp_path}/'))
    infos = [dataset.get_data_info(i) for i in range(3)]
    assert dataset.metainfo['classes'] == ('cat', 'dog')
    assert [info['gt_label'] for info in infos] == [0, 0, 1]
    stated = RecordingFolder(str(tmp_path), classes=['dog', 'emu', 'cat'])
    assert [stated.get_data_info(i)['gt_label'] for i in range(3)] == [2, 2, 0]
    with pytest.raises(UserError, match='recordings of cat, which are not among the classes dog'):
        RecordingFolder(str(tmp_path), classes=['dog'])


def test_folders_that_cannot_be_read(digits, tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        RecordingFolder(str(tmp_path / 'nothing'))
    with pytest.raises(UserError, match='no recording below'):
        RecordingFolder(str(digits), pattern=PATTERN, only=dict(speaker=['nobody']))
    with pytest.raises(UserError, match='has no group number'):
        RecordingFolder(str(digits), only=dict(number=[1]))
    with pytest.raises(UserError, match='no regular expression'):
        RecordingFolder(str(digits), pattern='(')


@pytest.fixture(scope='module')
def commands(tmp_path_factory):
    """Ten recordings of each word, of which one is for validation and two for testing; two backgrounds."""
    root = tmp_path_factory.mktemp('commands')
    lists = collections.defaultdict(list)
    for word in WORDS:
        (root / word).mkdir()
        for i in range(10):
            (root / word / f'{i:08x}_nohash_0.wav').touch()
            kind = 'validation' if i == 3 else 'testing' if i in (5, 6) else 'training'
            lists[kind].append(f'{word}/{i:08x}_nohash_0.wav\n')
    (root / '_background_noise_').mkdir()
    for name in ('pink', 'tap'):
        soundfile.write(root / '_background_noise_' / f'{name}.wav', tone(60), RATE)
    for kind in ('validation', 'testing'):
        (root / f'{kind}_list.txt').write_text(''.join(lists[kind]))
    return root, {kind: {line.strip() for line in found} for kind, found in lists.items()}


def test_speech_commands_has_the_official_subsets(commands):
    root, lists = commands
    kinds = dict(train='training', val='validation', test='testing')
    for subset, kind in kinds.items():
        dataset = SpeechCommands(str(root), subset)
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        found = {info['recording_path'][len(str(root)) + 1 :] for info in infos}
        assert found == lists[kind]
        assert all(WORDS[info['gt_label']] in info['recording_path'] for info in infos)
    assert len(WORDS) == len(set(WORDS)) == 35


def test_speech_commands_with_twelve_classes(commands):
    root, _ = commands
    spans = {}
    for subset in ('train', 'val', 'test'):
        dataset = SpeechCommands(str(root), subset, num_classes=12)
        assert dataset.metainfo['classes'] == (*COMMANDS, '_silence_', '_unknown_')
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        counts = collections.Counter(info['gt_label'] for info in infos)
        each = dict(train=7, val=1, test=2)[subset]
        assert all(counts[label] == each for label in range(10))
        assert counts[10] == counts[11] == each
        silence = [info for info in infos if info['gt_label'] == 10]
        spans[subset] = [(info['start'], info['start'] + info['duration']) for info in silence]
        unknown = [info['recording_path'] for info in infos if info['gt_label'] == 11]
        assert not any(f'/{word}/' in path for path in unknown for word in COMMANDS)
        assert infos == [
            info
            for again in [SpeechCommands(str(root), subset, num_classes=12)]
            for info in (again.get_data_info(i) for i in range(len(again)))
        ]
    assert max(end for _, end in spans['train']) <= 48 <= min(s for s, _ in spans['val'])
    assert max(end for _, end in spans['val']) <= 54 <= min(s for s, _ in spans['test'])
    assert max(end for _, end in spans['test']) <= 60


def test_speech_commands_elsewhere(tmp_path):
    with pytest.raises(UserError, match=r'validation_list\.txt, a list of Speech Commands V2'):
        SpeechCommands(str(tmp_path))
    with pytest.raises(UserError, match='35 or 12 classes, not 20'):
        SpeechCommands(str(tmp_path), num_classes=20)
    with pytest.raises(UserError, match="got 'validation'"):
        SpeechCommands(str(tmp_path), 'validation')


def write_audioset(root, rows: list[tuple[str, str]], present: list[str]):
    (root / 'class_labels_indices.csv').write_text(
        'index,mid,display_name\n0,/m/a,"Speech"\n1,/m/b,"Child speech, kid speaking"\n2,/t/c,"Dog"\n'
    )
    header = '# Segments csv\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n'
    lines = [f'{ytid}, 30.000, 40.000, "{labels}"\n' for ytid, labels in rows]
    (root / 'balanced_train_segments.csv').write_text(header + ''.join(lines))
    (root / 'audio').mkdir()
    for name in present:
        (root / 'audio' / name).touch()


def test_audioset_leaves_missing_recordings_out_and_says_so(tmp_path, monkeypatch):
    notes = []
    monkeypatch.setattr(
        'unireplknet_mm.modalities.audio.audioset.print_log', lambda text, **_: notes.append(text)
    )
    rows = [('--4gqARaEJE', '/m/a,/t/c'), ('-0BIyqJj9ZU', '/m/b'), ('gone', '/m/a')]
    write_audioset(tmp_path, rows, ['--4gqARaEJE.wav', 'Y-0BIyqJj9ZU.flac', 'other.wav'])
    dataset = AudioSet(str(tmp_path))
    assert dataset.metainfo['classes'] == ('Speech', 'Child speech, kid speaking', 'Dog')
    assert [dataset.get_data_info(i)['gt_label'] for i in range(2)] == [[0, 2], [1]]
    assert names(dataset) == {'--4gqARaEJE.wav', 'Y-0BIyqJj9ZU.flac'}
    assert len(notes) == 1 and notes[0].startswith('1 of the 3 recordings in balanced_train')
    with pytest.raises(UserError, match=r'1 of the 3 recordings.*most_missing=0\.2'):
        AudioSet(str(tmp_path), most_missing=0.2)
    twice = ['balanced_train_segments.csv'] * 2
    assert len(AudioSet(str(tmp_path), ann_file=twice)) == 4


@pytest.mark.parametrize(
    ('rows', 'reason'),
    [([('a', '/m/z')], "a has the label '/m/z'"), ([('a, b', '/m/a')], 'is no line of AudioSet')],
)
def test_audioset_with_a_wrong_list(tmp_path, rows, reason):
    write_audioset(tmp_path, rows, ['a.wav'])
    with pytest.raises(UserError, match=reason):
        AudioSet(str(tmp_path))
    with pytest.raises(UserError, match='does not exist'):
        AudioSet(str(tmp_path), ann_file='eval_segments.csv')


class Labels(list):
    def get_cat_ids(self, index):
        return self[index]


def test_balanced_sampling_hears_rare_labels_as_often():
    dataset = Labels([[0]] * 90 + [[1]] * 10)
    sampler = BalancedSampler(dataset, seed=1)
    drawn = np.concatenate([np.array(list(sampler)) for sampler.epoch in range(40)])
    assert len(drawn) == 40 * len(sampler) == 4000
    assert abs((drawn >= 90).mean() - 0.5) < 0.05
    sampler.set_epoch(3)
    first = list(sampler)
    assert first == list(sampler)
    sampler.set_epoch(4)
    assert first != list(sampler)


def test_balanced_sampling_shares_an_epoch_among_processes(monkeypatch):
    dataset = Labels([[i % 3, 3] for i in range(11)])
    alone = list(BalancedSampler(dataset, seed=0))
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(
            'unireplknet_mm.modalities.audio.sampling.get_dist_info', lambda rank=rank: (rank, 2)
        )
        shares.append(list(BalancedSampler(dataset, seed=0)))
    assert [len(share) for share in shares] == [6, 6]
    together = [index for pair in zip(*shares, strict=True) for index in pair]
    assert together[:11] == alone[:11]
