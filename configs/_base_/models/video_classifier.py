"""Video classifier (§3.3, Eq. 5): 16 frames as one image of 4×4, then an image classifier's parts.

A leaf adds the architecture, drop path, the head's input channels, and the mixup and cutmix rates.
"""

_base_ = './classifier.py'

input_shape = (16, 3, 224, 224)  # of a clip: frames, channels, height, width
model = dict(
    type='VideoClassifier',
    embedding=dict(type='FrameGrid', num_frames=input_shape[0], layout='grid'),
    head=dict(num_classes=400),
)
