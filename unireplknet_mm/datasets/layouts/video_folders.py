"""One's own videos: a folder a class, without lists."""

from typing import Any

from unireplknet_mm.datasets.layouts.kinetics import Kinetics


class VideoFolders(Kinetics):
    """The demo data are those of Kinetics, whose lists stay unread."""

    name = 'video_folders'
    dataset_types = ('VideoFolder',)
    files = ('{train,val}/CLASS/*.mp4',)
    title = ''

    def dataset_settings(self, split: str, parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(ann_file='', data_prefix=split)


LAYOUT = VideoFolders()
