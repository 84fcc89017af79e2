"""What MMEngine ends in where a config misspells a type or an argument, said as the user's error."""

import difflib
import inspect
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry

from unireplknet_mm.configuration import find_dicts, type_name
from unireplknet_mm.errors import UserError

UNKNOWN_TYPE = re.compile(r'([\w.]+) is not in the (?:[\w-]+::)?([\w ]+?) registry')
UNKNOWN_ARGUMENT = re.compile(r"([\w.]+)\(\) got an unexpected keyword argument '(\w+)'")
# The keys of a config under which a registered name stands.
NAMING_KEYS = ('type', 'constructor', 'runner_type')
# The toolboxes' constructors for layer-wise learning rates, each for a few networks of its own.
LAYER_DECAY_CONSTRUCTORS = (
    'LearningRateDecayOptimizerConstructor',
    'LearningRateDecayOptimWrapperConstructor',
)


@contextmanager
def explain_mistakes(cfg: Config) -> Iterator[None]:
    """While a config's parts are built: a type or an argument that no class has is the user's error.

    Only where the config holds that name, and for an argument in the dict of a type whose class does not take
    it; the same exceptions of a program keep their traceback. So is a toolbox's constructor for layer-wise
    learning rates that does not know the backbone.

    Raises:
        UserError: with the name and the one that it resembles.
    """
    try:
        yield
    except UserError:
        raise
    except KeyError as error:
        message = _explain_type(str(error), cfg)
        if message is None:
            raise
        raise UserError(message) from error
    except TypeError as error:
        message = _explain_argument(str(error), cfg)
        if message is None:
            raise
        raise UserError(message) from error
    except NotImplementedError as error:
        message = _explain_constructor(error, cfg)
        if message is None:
            raise
        raise UserError(message) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' for the closest name; '' where none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f' Did you mean {close[0]}?' if close else ''


def _explain_type(problem: str, cfg: Config) -> str | None:
    match = UNKNOWN_TYPE.search(problem)
    if match is None:
        return None
    name, kind = match.groups()
    if not any(config.get(key) == name for config in find_dicts(cfg) for key in NAMING_KEYS):
        return None
    bare = name.rpartition('.')[2]
    known = {key for registry in _registries(kind) for key in registry.module_dict}
    return (
        f'the config names {name}, which is no registered {kind}.{did_you_mean(bare, known)}\n'
        'One of your own is registered by its module: name that in custom_imports.'
    )


def _explain_argument(problem: str, cfg: Config) -> str | None:
    match = UNKNOWN_ARGUMENT.search(problem)
    if match is None:
        return None
    callee, argument = match.groups()
    owner = callee.removesuffix('.__init__').rpartition('.')[2]
    for config in find_dicts(cfg):
        if 'type' not in config or argument not in config:
            continue
        for built in _registered(config):
            family = built.__mro__ if inspect.isclass(built) else (built,)
            known = _arguments(family)
            if argument in known:  # the class takes it: the call that failed is another one
                continue
            if owner in [getattr(member, '__name__', None) for member in family]:
                hint = did_you_mean(argument, known)
                return (
                    f'{type_name(config)} takes no argument {argument}, which the config gives it.'
                    f'{hint}'
                )
    return None


def _explain_constructor(error: NotImplementedError, cfg: Config) -> str | None:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    constructor = type_name(dict(type=(cfg.get('optim_wrapper') or {}).get('constructor')))
    if constructor not in LAYER_DECAY_CONSTRUCTORS or frame.f_code.co_name != 'add_params':
        return None
    return (
        f'{constructor} of optim_wrapper does not know the layers of this backbone.\n'
        "Use constructor='LayerDecayOptimWrapperConstructor', which asks the backbone and takes the same "
        'paramwise_cfg.'
    )


def _registries(kind: str | None = None) -> Iterator[Registry]:
    """MMEngine's registries and those of the toolboxes below them; those of one kind, such as 'model'."""
    roots = [part for part in vars(mmengine.registry).values() if isinstance(part, Registry)]
    for root in roots:
        for registry in (root, *root.children.values()):
            if kind in (None, registry.name, root.name):
                yield registry


def _registered(config: dict) -> list[Callable]:
    """The classes that a config's type may stand for: itself, or those registered by its name."""
    if not isinstance(config['type'], str):
        return [config['type']]
    name = type_name(config)
    return [
        registry.module_dict[name] for registry in _registries() if name in registry.module_dict
    ]


def _arguments(family: Iterable[Callable]) -> set[str]:
    functions = [vars(part).get('__init__') if inspect.isclass(part) else part for part in family]
    return {
        name
        for function in functions
        if inspect.isfunction(function)
        for name in inspect.signature(function).parameters
    } - {'self', 'args', 'kwargs'}
