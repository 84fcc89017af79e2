"""The suite's models by name in mmpretrain, mmdet and mmseg: importing this module makes them known there.

    import unireplknet_mm.integrations.openmmlab
    from mmpretrain import inference_model
    from mmdet.apis import DetInferencer

    inference_model('unireplknet_t_in1k', 'cat.jpg')
    DetInferencer('cascade_unireplknet_t_3x')('street.jpg')

A config file needs no import: it imports `unireplknet_mm` itself. Names are those of `model-index.yml` and of
the published weights. mmengine 0.10 reads names of the toolboxes' own indexes only, so its inferencers are
taught here to ask the suite first; mmpretrain keeps a register of its own, and its inferencers are taught to
refuse weights that do not fit, as those of the other two do (`engine/loading.py`).
"""

import functools
from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.infer import BaseInferencer

from unireplknet_mm import zoo
from unireplknet_mm.engine.loading import inferring
from unireplknet_mm.errors import ArgumentError

INFERENCERS = dict(
    mmpretrain='mmpretrain.ImageClassificationInferencer',
    mmdet='mmdet.apis.DetInferencer',
    mmseg='mmseg.apis.MMSegInferencer',
)


def register_in_mmpretrain() -> None:
    """Add the classifiers to what `get_model`, `list_models` and `inference_model` know."""
    try:
        from mmpretrain.apis.base import BaseInferencer as ClassificationInferencer
        from mmpretrain.apis.model import ModelHub
        from modelindex.load_model_index import load
    except ModuleNotFoundError as error:
        if error.name not in ('mmpretrain', 'modelindex'):
            raise
        return  # mmpretrain is not installed, and its names are nobody's
    index = load(str(zoo.home() / zoo.INDEX))
    index.build_models_with_collections()
    entries = {entry.name: entry for entry in index.models}
    for model in zoo.models():
        if model.scope != 'mmpretrain':
            continue
        entry = entries[model.name]
        entry.config, entry.weights = str(model.config), model.weights
        for name in (model.name, *model.aliases):
            ModelHub._models_dict[name] = entry
    if not hasattr(ClassificationInferencer.__init__, 'refuses_misfits'):
        ClassificationInferencer.__init__ = refuse_misfits(ClassificationInferencer.__init__)


def refuse_misfits(init: Callable) -> Callable:
    """`BaseInferencer.__init__` of mmpretrain, whose model only predicts, as those of the other toolboxes."""

    @functools.wraps(init)
    def initialise(
        self: Any, model: Any, pretrained: bool | str = True, *args: Any, **kwargs: Any
    ) -> None:
        with inferring(pretrained if isinstance(pretrained, str) else str(model)):
            init(self, model, pretrained, *args, **kwargs)

    initialise.refuses_misfits = True
    return initialise


def ask_the_suite_first(load_from_metafile: Callable) -> Callable:
    """`BaseInferencer._load_model_from_metafile` that knows the models of the suite as well."""

    @functools.wraps(load_from_metafile)
    def load(self: BaseInferencer, model: str) -> tuple[Config, str]:
        found = zoo.find(model)
        if found is None:
            return load_from_metafile(self, model)
        if found.scope != self.scope:
            raise ArgumentError(
                f'{model} is a model of {found.scope}: give it to {INFERENCERS[found.scope]}, not to '
                f'{type(self).__name__}'
            )
        return Config.fromfile(found.config), found.weights

    load.asks_the_suite = True
    return load


def register_in_inferencers() -> None:
    """Let the inferencers of all toolboxes find the suite's models; once, however often it is called."""
    load: Any = BaseInferencer._load_model_from_metafile
    if not hasattr(load, 'asks_the_suite'):
        BaseInferencer._load_model_from_metafile = ask_the_suite_first(load)


register_in_mmpretrain()
register_in_inferencers()
