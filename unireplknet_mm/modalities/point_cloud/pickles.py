"""Reading a pickle of point clouds without running code from it."""

from pathlib import Path
from typing import Any

from unireplknet_mm.modalities.pickles import UNREADABLE, ArraysUnpickler
from unireplknet_mm.modalities.point_cloud.files import PointCloudError


def read_arrays(path: Path) -> Any:
    """What is in a pickle: lists, tuples, dicts, numbers and NumPy arrays.

    Raises:
        PointCloudError: it cannot be read, is no pickle, or holds anything else.
    """
    try:
        with path.open('rb') as file:
            return ArraysUnpickler(file).load()
    except OSError as error:
        raise PointCloudError(f'{path} cannot be read: {error.strerror or error}') from None
    except UNREADABLE as error:
        raise PointCloudError(f'{path} is no readable pickle of arrays: {error}') from None
