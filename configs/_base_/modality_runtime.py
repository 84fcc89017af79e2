"""Runtime settings of classifying what is no image: mmpretrain's, and classes that are compared."""

_base_ = './cls_runtime.py'

default_hooks = dict(same_classes=dict(type='SameClassesHook'))
