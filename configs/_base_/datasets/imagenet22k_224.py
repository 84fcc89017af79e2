"""ImageNet-22K at 224 for pre-training (Table 17): 21,841 classes, 14,197,122 images, no validation split.

Augmented as ImageNet-1K. 32 images a GPU are those of the published commands of S and B.
"""

_base_ = './imagenet_224.py'

data_preprocessor = dict(num_classes=21841)

train_dataloader = dict(
    batch_size=32, dataset=dict(type='ImageNet21k', data_root='data/imagenet22k')
)
val_dataloader = None
test_dataloader = None
val_evaluator = None
test_evaluator = None
