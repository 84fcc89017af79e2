"""What the public data sets of recordings share: loaders, scores, and that --tta averages crops."""

train_dataloader = dict(
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = [dict(type='Accuracy', topk=(1, 5)), dict(type='ReplacedRecordings')]
test_evaluator = val_evaluator
tta_model = dict(type='AverageClsScoreTTA')
