"""HDF5 files, of which ScanObjectNN consists; h5py is imported only here, and only when one is touched."""

from types import ModuleType

from unireplknet_mm.errors import MissingPackageError


def import_h5py() -> ModuleType:
    """h5py.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(
            f"HDF5 files of point clouds need h5py ({error}): pip install 'unireplknet-mm[point_cloud]'"
        ) from error
    return h5py
