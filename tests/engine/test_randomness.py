"""Random numbers are a function of seed and position: not of the past, the workers or the process."""

import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, pseudo_collate
from mmengine.registry import DATA_SAMPLERS, DATASETS, DefaultScope
from mmengine.runner import Runner

from unireplknet_mm.engine.randomness import SeededDataset, SeededIndex, seed_generators


@DATASETS.register_module()
class NoisyDataset(BaseDataset):
    """Sample i is i and three random numbers, one from each generator."""

    METAINFO = dict(classes=('a', 'b'))

    def load_data_list(self):
        return [dict(number=number) for number in range(6)]

    def prepare_data(self, idx):
        return (
            self.get_data_info(idx)['number'],
            random.random(),
            np.random.rand(),
            torch.rand(1).item(),
        )


def build_loader(num_workers=0, sampler='DefaultSampler', seed=3):
    return Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            sampler=dict(type='SeededSampler', sampler=dict(type=sampler, shuffle=True)),
            dataset=dict(type='SeededDataset', dataset=dict(type='NoisyDataset')),
            collate_fn=dict(type='pseudo_collate'),
        ),
        seed=seed,
    )


def epoch(loader, number=0):
    loader.sampler.set_epoch(number)
    return [[tuple(np.ravel(part)) for part in batch] for batch in loader]


def test_samples_do_not_depend_on_workers_or_history():
    expected = [epoch(build_loader(), number) for number in range(2)]
    assert expected[0] != expected[1]
    assert expected[0] != epoch(build_loader(seed=4))

    random.random(), np.random.rand(), torch.rand(1)
    assert epoch(build_loader(), 1) == expected[1], 'the second epoch depends on the first'
    loader = build_loader(num_workers=2)
    assert [epoch(loader, number) for number in range(2)] == expected


def test_loading_in_the_main_process_disturbs_no_generator():
    seed_generators((1, 2), devices=True)
    undisturbed = random.random(), np.random.rand(), torch.rand(1)
    seed_generators((1, 2), devices=True)
    dataset = build_loader().dataset
    dataset[SeededIndex(1, (3, 4))]
    assert (random.random(), np.random.rand(), torch.rand(1)) == undisturbed


@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_one_pass_starts_where_it_is_told(sampler):
    def indices(sampler, count):
        return [(int(index), index.key) for index in itertools.islice(sampler, count)]

    expected = indices(build_loader(sampler=sampler).sampler, 6)
    assert len(set(expected)) == 6

    seeded = build_loader(sampler=sampler).sampler
    seeded.start_at(4)
    assert indices(seeded, 2) == expected[4:]
    assert indices(seeded, 6) == expected, 'the pass after it starts there too'


def test_ranks_augment_differently(monkeypatch):
    keys = []
    for rank in range(2):
        monkeypatch.setattr('unireplknet_mm.engine.randomness.get_rank', lambda rank=rank: rank)
        keys.append(next(iter(build_loader().sampler)).key)
    assert keys[0] != keys[1]


def test_seeded_index_is_an_int_that_survives_pickling():
    index = pickle.loads(pickle.dumps(SeededIndex(7, (1, 2, 3))))
    assert isinstance(index, SeededIndex)
    assert (index, index.key) == (7, (1, 2, 3))
    assert [10, 20][SeededIndex(1, ())] == 20


def test_dataset_stays_what_it_is():
    dataset = pickle.loads(pickle.dumps(build_loader().dataset))
    assert isinstance(dataset, SeededDataset)
    assert len(dataset) == 6
    assert dataset.metainfo['classes'] == ('a', 'b')
    assert dataset.get_data_info(2)['sample_idx'] == 2
    assert dataset[2][0] == 2


def test_is_found_in_child_scopes():
    for scope in ('mmdet', 'mmseg', 'mmpretrain'):
        with DefaultScope.overwrite_default_scope(scope):
            dataset = DATASETS.build(
                dict(type='SeededDataset', dataset=dict(type='mmengine.NoisyDataset'))
            )
            sampler = DATA_SAMPLERS.build(
                dict(type='SeededSampler', sampler=dict(type='DefaultSampler')),
                default_args=dict(dataset=dataset, seed=0),
            )
        assert sorted(sampler) == list(range(6))


def test_collate_sees_plain_samples():
    dataset = build_loader().dataset
    batch = pseudo_collate([dataset[SeededIndex(0, (1,))], dataset[SeededIndex(0, (1,))]])
    assert all(len(set(part)) == 1 for part in batch), 'equal keys gave different samples'


def test_a_pipeline_that_a_hook_switches_reaches_the_wrapped_dataset():
    dataset = SeededDataset(dict(type='NoisyDataset'))
    dataset.pipeline = 'another one'
    assert dataset.dataset.pipeline == 'another one'
    assert 'pipeline' not in vars(dataset)
