"""Detectors of mmdet as one function of fixed sizes, postprocessing included.

`file.py` is what the file of a detector does; `two_stage.py` and its like are what stands behind the
neck, a class a family of detectors; `suppression.py` and `letterbox.py` are what they share; `results.py`
compares detections.
"""

from unireplknet_mm.export.detection.file import DetectorFile

__all__ = ['DetectorFile']
