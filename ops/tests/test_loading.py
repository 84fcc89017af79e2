"""Finding and loading the library: twice, under another name, from odd places, of another version."""

import shutil

import pytest
import torch
from op_cases import reason_to_skip, run_python

from unireplknet_ops import library

needs_op = pytest.mark.skipif(reason_to_skip('cpu') is not None, reason='no compiled op')


def output_of(code: str, **environment: str) -> str:
    done = run_python(code, **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


CONVOLVE = """
import torch
from unireplknet_ops import depthwise_conv2d, library
print(depthwise_conv2d(torch.ones(1, 2, 5, 5), torch.ones(2, 1, 3, 3)).sum().item())
"""


@needs_op
def test_a_copy_loaded_before_is_used(tmp_path):
    copy = shutil.copy(library.directory() / library.FILE_NAMES['cpu'], tmp_path / 'copy.so')
    code = f'import torch\ntorch.ops.load_library({str(copy)!r})\n{CONVOLVE}'
    assert output_of(code + 'print(library.is_available("cpu"))').split() == ['338.0', 'True']


@pytest.mark.parametrize('directory', ['x' * 300, '/proc/self/mem', '/dev/null/lib', ' '])
def test_a_directory_that_cannot_be_leaves_native(directory):
    code = CONVOLVE + 'print(library.is_available("cpu"))'
    assert output_of(code, UNIREPLKNET_OPS_LIB_DIR=directory).split()[-2:] == ['338.0', 'False']


@needs_op
def test_a_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(library, 'OPERATORS', (*library.OPERATORS, 'depthwise_conv3d'))
    assert 'of another version, without depthwise_conv3d' in library._load_library('cpu')


@needs_op
@pytest.mark.parametrize('part', [slice(0, 6), slice(2, 8)], ids=['first', 'last'])
def test_a_slice_of_channels_last_stays_channels_last(part):
    whole = torch.randn(2, 8, 9, 9).to(memory_format=torch.channels_last)
    for x in (whole[:, part], whole[:, :, 1:, 2:]):
        weight = torch.randn(x.shape[1], 1, 3, 3)
        native = torch.nn.functional.conv2d(x, weight, padding=1, groups=x.shape[1])
        out = torch.ops.unireplknet.depthwise_conv2d(x, weight)
        assert out.stride() == native.stride()
        torch.testing.assert_close(out, native)
        fake = torch.ops.unireplknet.depthwise_conv2d(
            torch.empty_strided(x.shape, x.stride(), device='meta'), weight.to('meta')
        )
        assert fake.stride() == out.stride()
