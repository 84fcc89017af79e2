"""What farthest-point sampling and nearest neighbours cost: the table in docs/point_cloud.md.

    python scripts/benchmark_points.py [--device cuda] [--threads 1]

4,096 of 8,192 points are sampled, and the 32 nearest of the 4,096 are found, for 16 clouds, as the recipe for
ModelNet-40 has them. Beside them SciPy's k-d tree finds the same neighbours, on the CPU, one cloud after the
other. On a CPU the least CPU time of the repetitions counts, on a GPU the least time until it is done.
"""

import argparse
import time
from collections.abc import Callable

import torch
from scipy.spatial import cKDTree

from unireplknet_mm.measuring.machine import describe
from unireplknet_mm.modalities.point_cloud.neighbours import farthest_points, nearest_neighbours


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = dict(batch=16, points=8192, sample=4096, neighbours=32, repeats=3, threads=1)
    for name, value in sizes.items():
        parser.add_argument(f'--{name}', type=int, default=value, help=f'default: {value}')
    parser.add_argument('--device', default='cpu')
    return parser.parse_args()


def least_seconds(function: Callable, device: str, repeats: int) -> float:
    clock = time.process_time if device == 'cpu' else time.perf_counter
    results = []
    for _ in range(repeats + 1):  # the first one warms up
        started = clock()
        function()
        if device != 'cpu':
            torch.cuda.synchronize()
        results.append(clock() - started)
    return min(results[1:])


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    print('; '.join(f'{key}: {value}' for key, value in describe(args.device).items()))
    generator = torch.Generator().manual_seed(0)
    clouds = torch.randn(args.batch, args.points, 3, generator=generator)
    clouds = (clouds / clouds.norm(dim=2, keepdim=True)).to(args.device)  # on a sphere
    sampled = clouds[:, : args.sample].contiguous()

    def search_trees() -> None:
        for cloud in sampled.cpu().numpy():
            cKDTree(cloud).query(cloud, args.neighbours)

    rows = {
        f'farthest points, {args.sample} of {args.points}': (
            lambda: farthest_points(clouds, args.sample),
            args.device,
        ),
        f'{args.neighbours} nearest of {args.sample}': (
            lambda: nearest_neighbours(sampled, args.neighbours),
            args.device,
        ),
        'the same by k-d trees (SciPy)': (search_trees, 'cpu'),
    }
    for name, (function, device) in rows.items():
        seconds = least_seconds(function, device, args.repeats)
        print(f'{name}, {args.batch} clouds on {device}: {seconds:.3f} s')


if __name__ == '__main__':
    main()
