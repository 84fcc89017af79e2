"""The training form of the Dilated Reparam Block as one operator, with its gradients, on the CPU."""

from unireplknet_ops.dilatedreparam.functional import dilated_reparam, dilated_reparam_takes_op

__all__ = ['dilated_reparam', 'dilated_reparam_takes_op']
