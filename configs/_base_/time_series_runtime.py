"""Runtime settings of forecasting: MMEngine alone, no toolbox."""

_base_ = './default_runtime.py'

custom_imports = dict(
    imports=['unireplknet_mm', 'unireplknet_mm.modalities.time_series'],
    allow_failed_imports=False,
)
default_scope = 'mmengine'
default_hooks = dict(
    logger=dict(interval=100),
    # The choice is made on the validation part.
    checkpoint=dict(max_keep_ckpts=1, save_best='forecast/mse', rule='less'),
    visualization=dict(type='ForecastVisualizationHook'),
    same_window=dict(type='SameWindowHook'),
)
visualizer = dict(type='Visualizer', vis_backends=_base_.vis_backends)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
