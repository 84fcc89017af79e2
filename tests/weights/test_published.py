"""The table of published weights agrees with itself."""

from unireplknet_mm.models.architecture import ARCHITECTURES
from unireplknet_mm.weights import PUBLISHED


def test_the_table_of_published_weights():
    assert len({weights.file_name for weights in PUBLISHED.values()}) == len(PUBLISHED)
    for name, weights in PUBLISHED.items():
        assert weights.arch in ARCHITECTURES
        assert f'unireplknet_{weights.arch}_' in name
        assert f'unireplknet_{weights.arch}_' in weights.file_name
        assert weights.url.endswith(f'/resolve/main/{weights.file_name}')
        assert weights.file_name.endswith('.pth')
        if 'in1k' in name and name.startswith('unireplknet') and weights.figure:
            measured = float(weights.file_name.removesuffix('.pth').rpartition('acc')[2])
            assert abs(measured - float(weights.figure.removeprefix('top-1 '))) <= 0.051
            assert f'_{weights.resolution}_' in weights.file_name
