"""The room on the disk that more meta data need, of a format that takes no exporter."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from file_models import function_of

from unireplknet_mm.export import Runtime
from unireplknet_mm.export.formats import Format
from unireplknet_mm.files import NoSpaceError
from unireplknet_mm.launch import exporting


class GraphAlone(Format):
    """A file without the weights, as OpenVINO's, which are in another one."""

    name, suffix, precisions = 'graph', '.graph', ('fp32',)

    def __init__(self, function):
        self.function = function

    def write(self, deployable, example, path, settings):
        path.write_text('graph')

    def load(self, path, threads=None):
        return Runtime({}, lambda inputs: self.function.reference(torch.from_numpy(inputs)))

    def restate(self, path, metadata):
        path.write_text(f'graph, {metadata["comparison"]["inputs"]} input')


@pytest.mark.parametrize(('room', 'fits'), [(5, True), (4, False)])
def test_more_meta_data_need_as_much_room_as_the_file_that_holds_them(
    tmp_path, monkeypatch, room, fits
):
    function = function_of('classifier')
    path = tmp_path / 'model.graph'
    order = exporting.Order(GraphAlone(function), 'fp32', (), path, (3, 64, 64))
    free = iter((2**40, room, room))
    monkeypatch.setattr(shutil, 'disk_usage', lambda folder: SimpleNamespace(free=next(free)))
    samples = [('one', function.example(1, (3, 64, 64)))]
    call = (function, order, dict(versions={}), samples, [], exporting.Steps(lambda line: None))
    if fits:
        exporting.write(*call)
        assert path.read_text() == 'graph, 1 input'
        return
    with pytest.raises(NoSpaceError, match='cannot be written'):
        exporting.write(*call)
    assert list(tmp_path.iterdir()) == []
