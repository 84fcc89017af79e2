"""Runtime settings of classification (mmpretrain)."""

_base_ = './default_runtime.py'

default_scope = 'mmpretrain'
default_hooks = dict(
    logger=dict(interval=100),
    checkpoint=dict(max_keep_ckpts=3, save_best='accuracy/top1'),
    visualization=dict(type='VisualizationHook', enable=False),
    same_classes=dict(type='SameClassesHook'),
)
visualizer = dict(type='UniversalVisualizer', vis_backends=_base_.vis_backends)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
