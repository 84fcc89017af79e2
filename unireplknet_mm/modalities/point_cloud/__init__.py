"""Point clouds (§3.3, Eq. 4): projections as images. Importing this registers what their configs name.

The order of a pipeline:

    LoadPointCloud         points of the data set, or of a file
    SamplePoints           as many as the network takes
    UnitSphere, ...        what changes coordinates (`transforms.py`)
    TurnedViews            in testing: copies whose scores are averaged
    PackPoints             what the classifier takes
"""

from unireplknet_mm.modalities.point_cloud.classifier import PointCloudClassifier
from unireplknet_mm.modalities.point_cloud.datasets import ModelNet, PointCloudFolder, ScanObjectNN
from unireplknet_mm.modalities.point_cloud.files import PointCloudError, read_cloud
from unireplknet_mm.modalities.point_cloud.metric import OverallAndMeanAccuracy
from unireplknet_mm.modalities.point_cloud.neighbours import farthest_points, nearest_neighbours
from unireplknet_mm.modalities.point_cloud.pickles import read_arrays
from unireplknet_mm.modalities.point_cloud.pointnet import PointColumn, PointNet
from unireplknet_mm.modalities.point_cloud.prediction import PointClouds, draw_cloud
from unireplknet_mm.modalities.point_cloud.projection import ThreeViewProjection
from unireplknet_mm.modalities.point_cloud.transforms import (
    LoadPointCloud,
    PackPoints,
    RandomJitter,
    RandomPointDropout,
    RandomRotation,
    RandomScale,
    RandomShift,
    RandomTurn,
    SamplePoints,
    TurnedViews,
    UnitSphere,
)
from unireplknet_mm.modalities.point_cloud.views import ConcatenateViews

__all__ = [
    'ConcatenateViews',
    'LoadPointCloud',
    'ModelNet',
    'OverallAndMeanAccuracy',
    'PackPoints',
    'PointCloudClassifier',
    'PointCloudError',
    'PointCloudFolder',
    'PointClouds',
    'PointColumn',
    'PointNet',
    'RandomJitter',
    'RandomPointDropout',
    'RandomRotation',
    'RandomScale',
    'RandomShift',
    'RandomTurn',
    'SamplePoints',
    'ScanObjectNN',
    'ThreeViewProjection',
    'TurnedViews',
    'UnitSphere',
    'draw_cloud',
    'farthest_points',
    'nearest_neighbours',
    'read_arrays',
    'read_cloud',
]
