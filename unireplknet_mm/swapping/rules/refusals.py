"""What cannot be swapped, known from a type alone, each with its reason."""

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.swapping.swap import Swap

MODELS = dict(
    det=dict(
        Mask2FormerVideo='videos are not supported',
        BaseReID='it is no detector',
    ),
    seg=dict(
        MultimodalEncoderDecoder='its heads read the tokens of CLIP, not maps',
        DepthEstimator='its heads read the maps of a diffusion model, beside text',
    ),
    cls={},
)
NOT_ONLY_A_CLASSIFIER = 'only image classifiers can be swapped; {} trains or uses its own network'

TWO_PATHS = (
    'it is a whole network of several paths that meet inside of it, with no backbone to take out'
)
BACKBONES = dict(
    BiSeNetV1=TWO_PATHS,
    BiSeNetV2=TWO_PATHS,
    ICNet=TWO_PATHS,
    STDCContextPathNet=TWO_PATHS,
    FastSCNN=TWO_PATHS,
    DDRNet=TWO_PATHS,
    PIDNet=TWO_PATHS,
    CGNet='it is a whole network, which feeds the image to each of its stages',
    ERFNet='it is encoder and decoder in one, and its head reads a map of stride 2',
    UNet='it is encoder and decoder in one, and its heads read the maps of the decoder',
    HourglassNet='its heads read the maps of several encoders and decoders, one after the other',
    TridentResNet='its heads read one map three times, from branches of different dilation',
    DetectoRS_ResNet='its convolutions and its neck, which feeds maps back into it, are made for each other',
    DetectoRS_ResNeXt='its convolutions and its neck, which feeds maps back into it, are made for each other',
    LoRAModel='it adds trainable weights to the linear layers of a frozen transformer',
    VGG='the classifier is a part of it',
    AlexNet='the classifier is a part of it',
    LeNet5='the classifier is a part of it',
)
PARTS = dict(
    ResLayer='{place} is the last stage of a ResNet, run on every RoI; take a config with a neck: FPN',
    RFP='the neck RFP feeds its maps back into the backbone',
    MLANeck='the neck MLANeck and its head add and join maps of one stride, as a transformer has them; '
    "SETR's naive and PUP heads can be swapped",
    DPTHead='the head DPTHead reads the tokens of a transformer',
    DeiTClsHead='the head DeiTClsHead reads the distillation token of a transformer',
    ConformerHead='the head ConformerHead reads two outputs, of convolutions and of a transformer',
)


def refuse_what_cannot_be_swapped(swap: Swap) -> None:
    """Stop before anything is changed where it is known that the swap makes no sense.

    Raises:
        SwapError: with the reason.
    """
    if swap.old_type == 'UniRepLKNet':
        swap.refuse('it is one already')
    model_type = type_name(swap.model)
    if model_type in MODELS[swap.task]:
        swap.refuse(f'the model is a {model_type}: {MODELS[swap.task][model_type]}')
    if swap.task == 'cls' and model_type != 'ImageClassifier':
        swap.refuse(NOT_ONLY_A_CLASSIFIER.format(model_type))
    if swap.old_type in BACKBONES:
        swap.refuse(BACKBONES[swap.old_type])
    for part in find_dicts(swap.model):
        if type_name(part) in PARTS:
            place = next(
                (key for owner in find_dicts(swap.model) for key in owner if owner[key] is part),
                'a part',
            )
            swap.refuse(PARTS[type_name(part)].format(place=place))
