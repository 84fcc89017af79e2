"""The op package in MMEngine: its layers for `conv_cfg`, its messages in MMEngine's logger.

    conv_cfg=dict(type='DepthwiseConv2d')               # or 'DepthWiseConv2dImplicitGEMM'

A model's `conv_cfg` names the type of all its convolutions, so the registered names build `nn.Conv2d`
where a convolution is not depthwise with stride 1 and 'same' padding.
"""

import logging

from mmengine.logging import print_log
from mmengine.registry import MODELS

from unireplknet_ops import (
    DepthwiseConv2d,
    DepthWiseConv2dImplicitGEMM,
    choose_implementation,
    depthwise_conv2d,
    explain,
    is_available,
    library,
)
from unireplknet_ops.depthwise import build_depthwise_conv2d, build_implicit_gemm

__all__ = [
    'DepthWiseConv2dImplicitGEMM',
    'DepthwiseConv2d',
    'choose_implementation',
    'depthwise_conv2d',
    'explain',
    'is_available',
    'library',
]


class MMEngineHandler(logging.Handler):
    """Passes on to MMEngine's current logger, whose level decides what is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        print_log(record.getMessage(), 'current', record.levelno)


MODELS.register_module('DepthwiseConv2d', module=build_depthwise_conv2d)
MODELS.register_module('DepthWiseConv2dImplicitGEMM', module=build_implicit_gemm)
library.logger.addHandler(MMEngineHandler())
library.logger.setLevel(logging.DEBUG)
# A program with logging of its own would show each message twice.
library.logger.propagate = False
