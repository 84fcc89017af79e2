"""The generated demo data, and configs that run on it instead of COCO, ADE20K or ImageNet."""

from unireplknet_mm.datasets.demo import make_demo_data
from unireplknet_mm.datasets.demo_config import use_demo_data

__all__ = ['make_demo_data', 'use_demo_data']
