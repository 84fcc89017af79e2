"""Export published detectors with UniRepLKNet-A as ONNX, and write what came of it into the docs (PAGE).

    python scripts/export_table.py                     all of them; fails where the table says something else
    python scripts/export_table.py --write             all of them; writes the table
    python scripts/export_table.py --only gfl --write  those with that in their names; writes their rows

Each config's backbone is swapped, the model has random weights, and the file runs in ONNX Runtime on drawn
images; it works where its detections are those of mmdet's own code, one to one. Random weights can amplify
the error of rounding beyond what is allowed: there a file works that is as near to mmdet's code in double
precision as that code is in single precision.
"""

import argparse
import copy
import gc
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / 'tests'
sys.path[:0] = [str(ROOT), str(ROOT / 'ops'), str(TESTS / 'swapping'), str(TESTS / 'export')]

import torch  # noqa: E402
from detectors import pictures  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from published_configs import DETECTORS  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

from unireplknet_mm.errors import UserError  # noqa: E402
from unireplknet_mm.export import FORMATS, deployable  # noqa: E402
from unireplknet_mm.export.comparison import Comparison, compare  # noqa: E402
from unireplknet_mm.export.detection import DetectorFile  # noqa: E402
from unireplknet_mm.export.errors import first_line  # noqa: E402
from unireplknet_mm.export.formats import Settings  # noqa: E402
from unireplknet_mm.models.whole_model import find_backbones  # noqa: E402
from unireplknet_mm.swapping import plan_swap, read_original  # noqa: E402

PAGE = ROOT / 'docs' / 'detector_files.md'
BEGIN, END = '<!-- export_table: begin -->\n', '<!-- export_table: end -->\n'
SIZE = (256, 320)
IMAGES = 2
# What a file may be off by, in times what mmdet's own code is off by, from its results in double precision.
ROUNDING = 2.0
# Of those whose swapped models are the same but for the neck's width or the schedule, one is enough; a
# language model takes text, which no image file has.
LEFT_OUT = (
    'caffe_fpn_1x', 'hrnet', 'swin', 'convnext', 'pvt', 'gcb', 'dconv', 'rtmdet_l', 'grounding', 'dcnv2',
)  # fmt: skip
CASES = {
    case.config.removeprefix('mmdet::'): case
    for case in DETECTORS
    if 'fcos' in case.config or not any(part in case.config for part in LEFT_OUT)
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--write', action='store_true', help='write the rows')
    parser.add_argument(
        '--only',
        nargs='+',
        default=[''],
        metavar='TEXT',
        help='configs with one of these in their name',
    )
    return parser.parse_args()


def try_export(name: str) -> str:
    """What came of a config, as the second and third cells of its row."""
    _, original = read_original(CASES[name].config)
    config = plan_swap(original, 'a', **CASES[name].options).config
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        import mmdet.models  # noqa: F401  registers detectors

        model = MODELS.build(config.model).eval()
    make_certain(model)
    for network in find_backbones(model).values():
        network.switch_to_deploy()
    try:
        file = deployable(model)
        return export(file)
    except UserError as error:
        reason = str(error).splitlines()[0].partition('. Failure message')[0]
    except Exception as error:  # what nobody has foreseen is one row, and the others are tried
        reason = f'{type(error).__name__}: {first_line(error)}'
    return f'does not | {reason}'


def make_certain(model: torch.nn.Module) -> None:
    """Let box heads find something that fits the image.

    With untrained weights all classes are alike, and below the threshold, and DINO picks its queries by
    scores that differ by errors of rounding; and YOLOX, whose sizes are exponentials, finds boxes of 900,000
    pixels, of which the error of rounding is several. NAS-FPN's maps are of 10,000, its boxes far outside.
    """
    heads = getattr(getattr(model, 'roi_head', None), 'bbox_head', [])
    for head in heads if isinstance(heads, torch.nn.ModuleList) else [heads]:
        if hasattr(head, 'fc_cls'):
            torch.nn.init.normal_(head.fc_cls.weight, std=0.3)
    if getattr(model, 'as_two_stage', False):
        for branch in model.bbox_head.cls_branches:
            torch.nn.init.normal_(branch.weight, std=0.1)
    if type(getattr(model, 'neck', None)).__name__ == 'NASFPN':
        for tower in (model.bbox_head.cls_convs, model.bbox_head.reg_convs):
            tower[0][0].conv.weight.data /= 1e4  # all levels share it
    for regression in getattr(getattr(model, 'bbox_head', None), 'multi_level_conv_reg', []):
        regression.weight.data /= 10


def export(file: DetectorFile) -> str:
    images = torch.from_numpy(pictures(IMAGES, *SIZE))
    inputs = [(str(index), image[None]) for index, image in enumerate(images)]
    try:
        file.reference(images[:1])
    except UserError:
        raise
    except Exception as error:
        return f'does not | nor does mmdet itself: {type(error).__name__}: {first_line(error)}'
    found = sum(int((run_here(file, image.numpy())['scores'] > 0).sum()) for _, image in inputs)
    direct = compare(file, lambda batch: run_here(file, batch), inputs, 'fp32')
    if not direct.agrees:
        return f'does not | in PyTorch already: {"; ".join(direct.lines())}'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'detector.onnx'
        FORMATS['onnx'].write(file, inputs[0][1], path, Settings())
        run = FORMATS['onnx'].load(path, threads=1)
        result = compare(file, run, inputs, 'fp32')
    words = f'of {found} detections, {in_words(result)}'
    if not result.agrees:
        exact = InDouble(file)
        own = compare(exact, lambda batch: file.reference(torch.from_numpy(batch)), inputs, 'fp32')
        files = compare(exact, run, inputs, 'fp32')
        words += f'; from float64, mmdet {in_words(own)}, file {in_words(files)}'
        allowed = {name: ROUNDING * value for name, value in own.record().items()}
        files.limits = {name: max(value, allowed[name]) for name, value in files.limits.items()}
        if not files.agrees:
            return f'differs | {words}'
    return f'{"works" if found else "differs"} | {words}'


class InDouble(TorchFunctionMode):
    """A file's model in double precision, to hold others against; as a mode, code that asks for float32.

    Args:
        file: of which a copy is made.
    """

    def __init__(self, file: DetectorFile):
        super().__init__()
        self.file = copy.deepcopy(file).double()
        self.limits, self.differences = file.limits, file.differences
        self.count_found = file.count_found

    def reference(self, images: torch.Tensor) -> dict:
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with self:
                return self.file.reference(images)
        finally:
            torch.set_default_dtype(default)

    def __torch_function__(self, function, types, args=(), kwargs=None):
        def wider(value):
            return torch.float64 if value is torch.float32 else value

        if function is torch.Tensor.float:
            function = torch.Tensor.double
        kwargs = {name: wider(value) for name, value in (kwargs or {}).items()}
        return function(*map(wider, args), **kwargs)


def in_words(result: Comparison) -> str:
    return ', '.join(f'{name} {value:.0e}' for name, value in result.record().items() if value)


def run_here(file: DetectorFile, batch) -> dict:
    with torch.no_grad():
        outputs = file(torch.from_numpy(batch))
    return {name: value.numpy() for name, value in zip(file.output_names, outputs, strict=True)}


def rows_of_page() -> dict[str, str]:
    """The lines of the page's table, by the names of configs."""
    table = PAGE.read_text(encoding='utf-8').partition(BEGIN)[2].partition(END)[0]
    return {line.split('`')[1]: line for line in table.splitlines() if line.startswith('| `')}


def write(rows: dict[str, str]) -> None:
    before, _, rest = PAGE.read_text(encoding='utf-8').partition(BEGIN)
    lines = ['| config | as ONNX | largest difference from mmdet, or reason |', '|---|---|---|']
    lines += [rows[name] for name in CASES if name in rows]
    PAGE.write_text(
        before + BEGIN + '\n'.join(lines) + '\n' + END + rest.partition(END)[2], encoding='utf-8'
    )


def outcome(row: str) -> str:
    """Without the figures, which differ from machine to machine where it works."""
    return row.partition(' works |')[0] + 'works' if ' works |' in row else row


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')
    found, page = {}, rows_of_page()
    for name in (name for name in CASES if any(part in name for part in args.only)):
        begin = time.process_time()
        found[name] = f'| `{name}` | {try_export(name)} |'
        print(f'{found[name]} ({time.process_time() - begin:.0f} s)', flush=True)
        gc.collect()
        if args.write:  # at once: the whole takes long
            write({**rows_of_page(), **found})
    if not args.write and (
        differing := [name for name in found if outcome(found[name]) != outcome(page.get(name, ''))]
    ):
        sys.exit(f'The page says something else of {", ".join(differing)}: write it with --write.')


if __name__ == '__main__':
    main()
