"""The demo behind `make demo`: train, evaluate and re-parameterize a small detector on real images.

Trains `configs/demo/cascade_unireplknet_demo.py` from scratch, a few minutes on two CPU cores,
and leaves in `work_dirs/demo/`: the log, the checkpoints (as trained, and re-parameterized), a picture
of ground truth beside predictions, a curve of loss and AP, and a summary table. They replace those of an
earlier demo.
"""

import argparse
import copy
import json
import os
import shutil
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common_options import add_cfg_options

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner
    from torch import nn

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/demo/cascade_unireplknet_demo.py'
TRAIN_IMAGES, VAL_IMAGES = 600, 80
PICTURED_IMAGES = 6
SCORE_THRESHOLD = 0.3
TABLE_HEAD = '| | as trained | re-parameterized |'

# A demo replaces these files of an earlier one, and only in a folder that has the marker.
MARKER = '.made_by_demo'
OUTPUT = (
    '[0-9]' * 8 + '_' + '[0-9]' * 6,  # logs, by the time of their start
    Path(CONFIG).name,
    'epoch_*.pth',
    'best_*.pth',
    'deploy.pth',
    'last_checkpoint',
    'predictions.png',
    'curve.png',
    'summary.md',
)
METRICS = {
    'box AP': 'coco/bbox_mAP',
    'box AP50': 'coco/bbox_mAP_50',
    'mask AP': 'coco/segm_mAP',
    'mask AP50': 'coco/segm_mAP_50',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=ROOT / 'work_dirs' / 'demo',
        help='folder of the results, new, empty or of an earlier demo (default: work_dirs/demo)',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def announce(message: str) -> None:
    print(f'\n==> {message}', flush=True)


def check_work_dir(folder: Path) -> None:
    """See that the files in a folder, if any, are those of a demo, which the next demo replaces.

    Raises:
        ExistingFileError: the folder holds files, and no demo made it.
    """
    from unireplknet_mm.errors import ExistingFileError

    if not folder.is_dir() or (folder / MARKER).is_file() or was_finished_without_marker(folder):
        return
    entries = sorted(entry.name for entry in folder.iterdir())
    if entries:
        some = ', '.join(entries[:3]) + (', ...' if len(entries) > 3 else '')
        raise ExistingFileError(
            f'{folder.resolve()} was not made by a demo and holds {some}; nothing is deleted.\n'
            'Choose a new or an empty folder with --work-dir, or empty this one yourself.'
        )


def claim_work_dir(folder: Path) -> None:
    """Create the folder and mark it as a demo's.

    Raises:
        ExistingFileError: as in `check_work_dir`.
        UserError: it cannot be created or written.
    """
    from unireplknet_mm.files import create_folder, write_text

    check_work_dir(folder)
    create_folder(folder, '--work-dir')
    text = 'tools/demo.py made this folder, and replaces its own files here.\n'
    write_text(folder / MARKER, text)


def remove_earlier_results(folder: Path) -> None:
    """Remove what an earlier demo left, and nothing else, from a folder that is a demo's."""
    from unireplknet_mm.files import remove_partial_files

    remove_partial_files(folder)
    for pattern in OUTPUT:
        for entry in folder.glob(pattern):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def was_finished_without_marker(folder: Path) -> bool:
    """Whether an earlier version of the demo, which left no marker, came to its end here."""
    summary = folder / 'summary.md'
    if not summary.is_file() or not (folder / 'deploy.pth').is_file():
        return False
    return summary.read_text(encoding='utf-8', errors='replace').startswith(TABLE_HEAD)


def make_data(cfg: 'Config') -> None:
    from tqdm import tqdm

    from unireplknet_mm.datasets import make_demo_data

    make_demo_data(
        'coco',
        cfg.data_root,
        TRAIN_IMAGES,
        VAL_IMAGES,
        size=cfg.image_size,
        overwrite=True,
        progress=lambda jobs: tqdm(jobs, unit='image'),
    )


def predict(model: 'nn.Module', batches: list[dict]) -> list[Any]:
    import torch

    model.eval()
    with torch.no_grad():
        return [sample for batch in batches for sample in model.test_step(batch)]


def images_per_second(models: list['nn.Module'], batches: list[dict]) -> list[float]:
    """The median rate of each model over batches, data loading apart, after two to warm up.

    The models take turns, so that a change in the machine's speed meets them alike.
    """
    rates: list[list[float]] = [[] for _ in models]
    for batch in [*batches[:2], *batches]:
        for model, model_rates in zip(models, rates, strict=True):
            start = time.perf_counter()
            predict(model, [batch])
            model_rates.append(len(batch['inputs']) / (time.perf_counter() - start))
    return [statistics.median(model_rates[2:]) for model_rates in rates]


def evaluate(runner: 'Runner') -> dict[str, float]:
    from unireplknet_mm import launch

    metrics = launch.test(runner)
    row = {name: metrics[key] for name, key in METRICS.items()}
    row['parameters (M)'] = sum(p.numel() for p in runner.model.parameters()) / 1e6
    return row


def draw_predictions(runner: 'Runner', samples: list[Any], out: Path) -> None:
    """One row an image: ground truth on the left, predictions above a score on the right."""
    import mmcv
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    from unireplknet_mm.files import replacing

    classes = runner.test_dataloader.dataset.metainfo['classes']
    colors = pyplot.get_cmap('tab10').colors
    columns = PICTURED_IMAGES // 2
    figure, axes = pyplot.subplots(2, 2 * columns, figsize=(4 * columns, 4.6), squeeze=False)

    def draw(axis: Any, image: Any, title: str, instances: Any, masks: Any, scores: Any) -> None:
        axis.imshow(image)
        axis.set_title(title, fontsize=8)
        axis.set_axis_off()
        for i, (box, label) in enumerate(zip(instances.bboxes, instances.labels, strict=True)):
            left, top, right, bottom = (float(value) for value in box)
            color = colors[int(label)]
            axis.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, ec=color, lw=1)
            )
            axis.contour(masks[i], levels=[0.5], colors=[color], linewidths=0.8)
            text = classes[int(label)] + ('' if scores is None else f' {scores[i]:.2f}')
            axis.text(
                left, top - 2, text, fontsize=5, color='white',
                bbox=dict(facecolor=color, edgecolor='none', pad=0.6),
            )  # fmt: skip

    for index, sample in enumerate(samples):
        image = mmcv.imread(sample.img_path, channel_order='rgb')
        row, column = index // columns, 2 * (index % columns)
        truth, found = sample.gt_instances, sample.pred_instances
        found = found[found.scores > SCORE_THRESHOLD]
        boxes = truth.bboxes / truth.bboxes.new_tensor(sample.scale_factor * 2)
        truth_masks = truth.masks.resize(sample.ori_shape).masks
        truth.bboxes = boxes
        draw(axes[row, column], image, 'ground truth', truth, truth_masks, None)
        draw(
            axes[row, column + 1], image, 'prediction',
            found, found.masks.cpu().numpy(), found.scores.cpu().numpy(),
        )  # fmt: skip
    figure.tight_layout()
    with replacing(out, keep_extension=True) as partial:
        figure.savefig(partial, dpi=160)
    pyplot.close(figure)


def draw_curve(scalars: Path, iterations_per_epoch: int, out: Path) -> None:
    """Loss of every logged iteration and AP of every validation over epochs."""
    from matplotlib import pyplot

    from unireplknet_mm.files import replacing

    entries = [json.loads(line) for line in scalars.read_text(encoding='utf-8').splitlines()]
    training = [entry for entry in entries if 'loss' in entry]
    validations = [entry for entry in entries if METRICS['box AP50'] in entry]
    figure, loss_axis = pyplot.subplots(figsize=(7, 4))
    epochs = [entry['step'] / iterations_per_epoch for entry in training]
    loss_axis.plot(epochs, [entry['loss'] for entry in training], color='gray', label='loss')
    loss_axis.set(xlabel='epoch', ylabel='training loss', yscale='log')
    ap_axis = loss_axis.twinx()
    for name in ('box AP50', 'mask AP50', 'box AP', 'mask AP'):
        values = [entry[METRICS[name]] for entry in validations]
        ap_axis.plot([entry['step'] for entry in validations], values, marker='o', label=name)
    ap_axis.set(ylabel='validation AP', ylim=(0, 1))
    lines = [*loss_axis.get_lines(), *ap_axis.get_lines()]
    figure.legend(lines, [line.get_label() for line in lines], loc='upper center', ncol=len(lines))
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    with replacing(out, keep_extension=True) as partial:
        figure.savefig(partial, dpi=130)
    pyplot.close(figure)


def summarize(trained: dict[str, float], folded: dict[str, float]) -> str:
    """A Markdown table: the trained model beside the same one re-parameterized."""
    lines = [TABLE_HEAD, '|---|---|---|']
    for name, value in trained.items():
        digits = 3 if 'AP' in name else 2
        lines.append(f'| {name} | {value:.{digits}f} | {folded[name]:.{digits}f} |')
    return '\n'.join(lines) + '\n'


def demo(args: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use('Agg')
    from unireplknet_mm import launch
    from unireplknet_mm.files import write_text
    from unireplknet_mm.models.whole_model import switch_to_deploy

    start = time.time()
    work_dir = args.work_dir.absolute()
    check_work_dir(work_dir)
    os.chdir(ROOT)
    cfg = launch.load_config(CONFIG, args.cfg_options)
    launch.prepare_device(cfg, 'none', 'auto')
    claim_work_dir(work_dir)
    cfg.work_dir = str(work_dir)
    announce(f'Demo data: {TRAIN_IMAGES} + {VAL_IMAGES} images of real digits on real photographs')
    make_data(cfg)
    launch.make_resumable(cfg)
    remove_earlier_results(work_dir)

    announce(f'Training {CONFIG}')
    runner = launch.build_runner(cfg)
    with launch.explain_mistakes(cfg):
        runner.train()
        batches = list(runner.test_dataloader)

    announce('Evaluating the trained model')
    trained = evaluate(runner)
    trained_model = copy.deepcopy(runner.model)
    announce('Re-parameterizing it and evaluating again')
    switch_to_deploy(runner.model)
    folded = evaluate(runner)
    rates = images_per_second([trained_model, runner.model], batches)
    trained['images/s'], folded['images/s'] = rates
    runner.save_checkpoint(
        cfg.work_dir,
        'deploy.pth',
        save_optimizer=False,
        save_param_scheduler=False,
        meta=dict(deploy=True),
    )

    announce('Drawing')
    pictured = predict(runner.model, batches[:PICTURED_IMAGES])[:PICTURED_IMAGES]
    draw_predictions(runner, pictured, work_dir / 'predictions.png')
    scalars = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    draw_curve(scalars, len(runner.train_dataloader), work_dir / 'curve.png')
    summary = summarize(trained, folded)
    write_text(work_dir / 'summary.md', summary)
    announce(f'Done in {(time.time() - start) / 60:.1f} minutes; see {work_dir}/\n\n{summary}')


def main() -> None:
    args = parse_args()
    from unireplknet_mm.launch import exit_on_user_error

    exit_on_user_error(demo)(args)


if __name__ == '__main__':
    main()
