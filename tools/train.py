"""Train any config of the suite, whatever its task.

python tools/train.py configs/det/cascade_unireplknet_s_3x.py
python tools/train.py configs/det/cascade_unireplknet_s_3x.py --demo-data
bash tools/dist_train.sh configs/seg/upernet_unireplknet_t_160k.py 8
"""

import argparse

from common_options import add_common_arguments, apply_to_environment


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or without a value from the last one in the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on GPU, bfloat16 on CPU'
    )
    parser.add_argument(
        '--amp-dtype', choices=['float16', 'bfloat16'], help='--amp in this precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the batch size over all GPUs',
    )
    parser.add_argument('--seed', type=int, help='random seed (default: as in the config)')
    return parser.parse_args()


def train(args: argparse.Namespace) -> None:
    from unireplknet_mm import launch

    cfg = launch.load_config(args.config, args.cfg_options)
    launch.check_complete(cfg, 'train')
    launch.set_work_dir(cfg, args.work_dir, args.demo_data)
    launch.prepare_device(cfg, args.launcher, args.device)
    if args.resume:
        launch.set_resume(cfg, args.resume)
    launch.set_seed(cfg, args.seed)
    if args.amp or args.amp_dtype:
        launch.enable_amp(cfg, args.amp_dtype)
    if args.auto_scale_lr:
        launch.enable_auto_scale_lr(cfg)
    if args.demo_data:
        next_step = launch.use_demo_data(cfg, args.cfg_options)
    launch.check_data(cfg, 'train', 'val')
    launch.check_pretrained(cfg)
    if cfg.get('load_from'):
        launch.check_content(cfg, cfg.load_from)
    launch.check_schedule(cfg)
    launch.make_resumable(cfg)
    launch.watch_losses(cfg)
    launch.create_work_dir(cfg)
    # Read now: the training may remove that checkpoint.
    first_iteration = launch.resumed_iteration(cfg) if args.demo_data else 0
    runner = launch.train(cfg)
    if args.demo_data:
        launch.report_demo_run(runner, next_step, first_iteration)


def main() -> None:
    args = parse_args()
    apply_to_environment(args)
    from unireplknet_mm.launch import exit_on_user_error

    exit_on_user_error(train)(args)


if __name__ == '__main__':
    main()
