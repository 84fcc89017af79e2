"""Writing video files by PyAV, which brings its own FFmpeg."""

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

from unireplknet_mm.errors import MissingPackageError

# x264's scale of quality; at 12 losses are hardly seen. With one thread the same frames give the same file.
H264_OPTIONS = dict(crf='12', preset='veryfast', threads='1')
CONTAINER_OPTIONS = dict(
    movflags='+faststart'
)  # the index first: a file that is cut off can be read


def import_av() -> ModuleType:
    """PyAV.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingPackageError(
            'videos are read and written by PyAV, which is not installed: '
            'pip install "unireplknet-mm[video]", or pip install av'
        ) from error
    return av


def write_video(path: str | Path, frames: Iterable[np.ndarray], rate: int = 25, **options) -> None:
    """Write frames as an H.264 video.

    Args:
        path: of a file that ends with the name of a container, such as .mp4.
        frames: (h, w, 3) uint8 in BGR, of one size, even in both directions.
        rate: frames a second.
        options: of the encoder, over `H264_OPTIONS`; `codec` and `gop_size` too.

    Raises:
        MissingPackageError: PyAV is not installed.
    """
    av = import_av()
    codec, gop_size = options.pop('codec', 'libx264'), options.pop('gop_size', 12)
    options = {**(H264_OPTIONS if codec == 'libx264' else {}), **options}
    container_options = CONTAINER_OPTIONS if Path(path).suffix == '.mp4' else {}
    with av.open(str(path), 'w', options=container_options) as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options)
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = 'yuv420p'
                stream.gop_size = gop_size
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format='bgr24')
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())
