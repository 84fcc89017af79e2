"""The benchmark's times as speed-ups, fractions and Markdown tables."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch

from unireplknet_ops.measure import Shape, valid_taps
from unireplknet_ops.results import Measurement
from unireplknet_ops.tuning_tables import PASSES, dtype_name

# Of an NVIDIA H200: bytes/s of a copy; FLOP/s outside the tensor cores; and what the banded (Toeplitz)
# form can be expected to reach on them.
H200_COPY = 4.3e12
H200_FLOAT32 = 60e12
H200_TENSOR_CORES = 600e12

# (what, its passes, which layout, the least kernel size, the aim); 'better' is torch's faster layout.
CPU_AIMS = (
    ('forward, in the layout that suits torch better', 'forward', 'better', 1, 1.0),
    ('forward, NCHW, K >= 15', 'forward', 'contiguous', 15, 10.0),
    ('grad-input, NCHW, K >= 7', 'grad_input', 'contiguous', 7, 1.2),
    ('grad-input, channels_last, K >= 7', 'grad_input', 'channels_last', 7, 1.2),
    ('grad-weight, NCHW, K >= 5', 'grad_weight', 'contiguous', 5, 15.0),
    ('grad-weight, channels_last, K >= 5', 'grad_weight', 'channels_last', 5, 15.0),
)


class Report:
    """Tables of a run.

    Args:
        machine: what the run describes itself with.
        rates: FLOP/s of the matrix product by 'dtype threads'.
        measurements: the passes; one whose op was wrong appears in no table.
    """

    def __init__(
        self,
        machine: dict[str, str],
        rates: dict[str, float],
        measurements: Sequence[Measurement],
    ):
        self.machine = machine
        self.rates = rates
        self.measurements = [m for m in measurements if not m.wrong]
        self.on_cpu = 'cores' in machine

    def markdown(self) -> str:
        """Everything, for README.md."""
        head = ', '.join(f'{key} {value}' for key, value in self.machine.items())
        rates = ', '.join(f'{key}: {rate / 1e9:.0f} G/s' for key, rate in self.rates.items())
        parts = [head, f'Matrix product (dtype threads): {rates}.', self.summary()]
        parts += self._cpu_tables() if self.on_cpu else self._cuda_tables()
        return '\n\n'.join(parts)

    def summary(self) -> str:
        return self._cpu_summary() if self.on_cpu else self._cuda_summary()

    def speed_up(self, measurement: Measurement, layout: str) -> float | None:
        """Native time / op time, None where either is missing; 'better' takes torch's faster layout."""
        seconds = measurement.seconds
        if layout == 'better':
            natives = {key: value for key, value in seconds.items() if key.startswith('native ')}
            if len(natives) < 2:
                return None
            layout = min(natives, key=natives.get).removeprefix('native ')
        native, op = seconds.get(f'native {layout}'), seconds.get(f'op {layout}')
        return native / op if native and op else None

    def fraction(self, measurement: Measurement, layout: str, valid: bool = False) -> float | None:
        """The op's useful FLOP/s over those of the matrix product."""
        op = measurement.seconds.get(f'op {layout}')
        if not op:
            return None
        shape = measurement.shape
        rate = self.rates[f'{dtype_name(shape.dtype)} {measurement.threads}']
        return (shape.valid_flops if valid else shape.flops) / op / rate

    def misses(self, most: int = 8) -> list[str]:
        """Of each aim on the CPU, the `most` cells that are furthest below it."""
        lines = []
        for dtype in self._dtypes():
            for what, name, layout, least, aim in CPU_AIMS:
                cells = []
                for m in self._aimed_at(dtype, name, least):
                    ratio = self.speed_up(m, layout)
                    if ratio is not None and ratio < aim:
                        cells.append((ratio, f'{m.shape}, threads {m.threads}'))
                cells.sort()
                for ratio, cell in cells[:most]:
                    lines.append(f'below {aim:g}x, {what}: {ratio:.2f}x, {cell}')
        return lines

    def _aimed_at(self, dtype: torch.dtype, name: str, least: int) -> list[Measurement]:
        """The passes that an aim of `CPU_AIMS` is about."""
        return [
            m
            for m in self.measurements
            if m.name == name and m.shape.dtype == dtype and m.shape.kernel_size >= least
        ]

    def _cpu_summary(self) -> str:
        rows = []
        for dtype in self._dtypes():
            for what, name, layout, least, aim in CPU_AIMS:
                ratios = [self.speed_up(m, layout) for m in self._aimed_at(dtype, name, least)]
                rows.append([dtype_name(dtype), what, f'{aim:g}x', *_statistics(ratios, aim, 'x')])
            fractions = [
                self.fraction(m, 'contiguous') for m in self._aimed_at(dtype, 'grad_weight', 5)
            ]
            what = 'grad-weight, NCHW, K >= 5, of the matrix product'
            percents = [100 * fraction for fraction in fractions if fraction]
            rows.append([dtype_name(dtype), what, '40 %', *_statistics(percents, 40, ' %')])
        columns = ['dtype', 'op against native', 'aim', 'geometric mean', 'least', 'reach the aim']
        return table(columns, rows)

    def _cpu_tables(self) -> list[str]:
        parts = []
        for dtype in self._dtypes():
            for name in PASSES:
                title = f'{name.replace("_", "-")}, {dtype_name(dtype)}'
                parts.append(
                    f'Speed-up of the {title} over torch, NCHW / channels_last: geometric mean over '
                    'batches, channels and threads, the least in brackets.'
                )
                parts.append(self._grid(name, dtype, self._cpu_entry))
            parts.append(
                f'The op in {dtype_name(dtype)}: its rate over that of the matrix product, with '
                'padding counted as work and (without it).'
            )
            parts.append(self._fractions(dtype))
        return parts

    def _grid(self, name: str, dtype: torch.dtype, entry: Callable) -> str:
        """A table of kernels by maps for one pass."""
        of_pass = [m for m in self.measurements if m.name == name and m.shape.dtype == dtype]
        maps = sorted({(m.shape.height, m.shape.width) for m in of_pass}, key=math.prod)
        rows = []
        for kernel in self._kernels(of_pass):
            row = [kernel_name(*kernel)]
            for size in maps:
                cells = [
                    m
                    for m in of_pass
                    if (m.shape.height, m.shape.width) == size
                    and (m.shape.kernel_size, m.shape.dilation) == kernel
                ]
                row.append(entry(cells))
            rows.append(row)
        return table(['K', *(map_name(*size) for size in maps)], rows)

    def _cpu_entry(self, cells: list[Measurement]) -> str:
        return ' / '.join(
            _mean_and_least([self.speed_up(cell, layout) for cell in cells])
            for layout in ('contiguous', 'channels_last')
        )

    def _fractions(self, dtype: torch.dtype) -> str:
        of_dtype = [m for m in self.measurements if m.shape.dtype == dtype]
        layouts = ('contiguous', 'channels_last')
        rows = []
        for kernel in self._kernels(of_dtype):
            row = [kernel_name(*kernel)]
            for layout in layouts:
                for name in PASSES:
                    cells = [
                        m
                        for m in of_dtype
                        if m.name == name and (m.shape.kernel_size, m.shape.dilation) == kernel
                    ]
                    nominal, valid = (
                        geometric_mean([self.fraction(m, layout, valid) for m in cells])
                        for valid in (False, True)
                    )
                    row.append(f'{nominal:.0%} ({valid:.0%})' if nominal else '-')
            rows.append(row)
        names = [name.replace('_', '-') for name in PASSES]
        short = {'contiguous': 'NCHW', 'channels_last': 'channels_last'}
        return table(
            ['K', *(f'{name}, {short[layout]}' for layout in layouts for name in names)], rows
        )

    def _cuda_summary(self) -> str:
        rows = []
        for dtype in self._dtypes():
            for name in PASSES:
                for batch in sorted({m.shape.batch for m in self.measurements}):
                    cells = [
                        m
                        for m in self.measurements
                        if (m.shape.dtype, m.name, m.shape.batch) == (dtype, name, batch)
                    ]
                    row = [dtype_name(dtype), name.replace('_', '-'), str(batch)]
                    for other in ('native contiguous', 'via channels_last', 'fft'):
                        row.append(_mean_and_least([_ratio(m, other) for m in cells]))
                    row.append(_mean_and_least([self.speed_up(m, 'channels_last') for m in cells]))
                    rows.append(row)
        columns = [
            *(
                'dtype',
                'pass',
                'batch',
                'NCHW: over native',
                'over channels_last with layout change',
            ),
            *('over fft', 'channels_last: over native'),
        ]
        return table(columns, rows)

    def _cuda_tables(self) -> list[str]:
        floors = 'NVIDIA H200' in self.machine['device']
        columns = ['map', 'K', 'N', 'C', 'op NCHW us']
        columns += ['memory floor us', 'compute floor us', 'over the floor'] if floors else []
        columns += ['op channels_last us', 'native NCHW', 'native channels_last']
        columns += ['via channels_last', 'fft']
        parts = []
        for dtype in self._dtypes():
            for name in PASSES:
                rows = []
                for m in self.measurements:
                    shape, op = m.shape, m.seconds.get('op contiguous')
                    if (shape.dtype, m.name) != (dtype, name) or not op:
                        continue
                    kernel = kernel_name(shape.kernel_size, shape.dilation)
                    size = map_name(shape.height, shape.width)
                    row = [size, kernel, str(shape.batch), str(shape.channels), _microseconds(op)]
                    if floors:
                        memory, compute = h200_floors(shape)
                        over = f'{op / max(memory, compute):.2f}x'
                        row += [_microseconds(memory), _microseconds(compute), over]
                    row.append(_microseconds(m.seconds.get('op channels_last')))
                    speed_up = self.speed_up(m, 'channels_last')
                    row.append(_factor(_ratio(m, 'native contiguous')))
                    row.append(_factor(speed_up))
                    row += [_factor(_ratio(m, other)) for other in ('via channels_last', 'fft')]
                    rows.append(row)
                title = f'{name.replace("_", "-")}, {dtype_name(dtype)}'
                parts += [
                    f'{title}: times of the op, and how much faster it is.',
                    table(columns, rows),
                ]
        return parts

    def _dtypes(self) -> list[torch.dtype]:
        return list(dict.fromkeys(m.shape.dtype for m in self.measurements))

    @staticmethod
    def _kernels(measurements: Iterable[Measurement]) -> list[tuple[int, int]]:
        kernels = {(m.shape.kernel_size, m.shape.dilation) for m in measurements}
        return sorted(kernels, key=lambda kernel: (kernel[1] > 1, kernel))


def h200_floors(shape: Shape) -> tuple[float, float]:
    """Seconds below which no kernel runs on an NVIDIA H200: of memory, and of arithmetic.

    Memory: input read and output written once. Arithmetic in float32: the taps on the map outside the
    tensor cores; in 16 bit: the banded form on them, for each 8 outputs of a row the blocks of 16 inputs
    on the map that they touch, rows of padding skipped.
    """
    memory = 2 * shape.elements * shape.dtype.itemsize / H200_COPY
    if shape.dtype == torch.float32:
        return memory, shape.valid_flops / H200_FLOAT32
    rows = valid_taps(shape.height, shape.kernel_size, shape.dilation)
    reach = shape.kernel_size // 2 * shape.dilation
    products = 0
    for first in range(0, shape.width, 8):
        inputs = min(shape.width, first + 8 + reach) - max(0, first - reach)
        products += 8 * 16 * math.ceil(inputs / 16)
    flops = 2 * shape.batch * shape.channels * rows * products
    return memory, flops / H200_TENSOR_CORES


def geometric_mean(values: Iterable[float | None]) -> float | None:
    logarithms = [math.log(value) for value in values if value]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else None


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
    return '\n'.join([*lines, *('| ' + ' | '.join(row) + ' |' for row in rows)])


def kernel_name(kernel_size: int, dilation: int) -> str:
    return str(kernel_size) if dilation == 1 else f'{kernel_size}, dilation {dilation}'


def map_name(height: int, width: int) -> str:
    return f'{height}²' if height == width else f'{height}×{width}'


def _ratio(measurement: Measurement, other: str) -> float | None:
    """How much faster the op is on NCHW maps than something else on them."""
    seconds = measurement.seconds
    op, others = seconds.get('op contiguous'), seconds.get(other)
    return others / op if op and others else None


def _statistics(values: Iterable[float | None], aim: float, unit: str) -> list[str]:
    values = [value for value in values if value]
    if not values:
        return ['-', '-', '0 of 0']
    reached = sum(value >= aim for value in values)
    mean = geometric_mean(values)
    return [f'{mean:.2f}{unit}', f'{min(values):.2f}{unit}', f'{reached} of {len(values)}']


def _mean_and_least(values: Iterable[float | None]) -> str:
    values = [value for value in values if value]
    return f'{_short(geometric_mean(values))} ({_short(min(values))})' if values else '-'


def _short(value: float) -> str:
    return f'{value:.2f}' if value < 3 else f'{value:.1f}' if value < 30 else f'{value:.0f}'


def _factor(value: float | None) -> str:
    return f'{_short(value)}x' if value else '-'


def _microseconds(seconds: float | None) -> str:
    return f'{seconds * 1e6:.1f}' if seconds else '-'
