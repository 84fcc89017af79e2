"""Files of the Hugging Face hub, `hf://OWNER/NAME[@REVISION]/FILE`, through the package huggingface_hub.

Its cache (HF_HUB_CACHE), its offline mode (HF_HUB_OFFLINE), its mirrors (HF_ENDPOINT) and its token are
what the user has set for it. One process downloads a file, those beside it wait for its lock.
"""

import importlib.util
import re
import textwrap
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from unireplknet_mm.errors import MissingPackageError, UserError
from unireplknet_mm.files import NO_SPACE, no_space_error
from unireplknet_mm.weights.errors import CheckpointError, DownloadError

HUB_URL = 'hf://'
FORM = 'hf://OWNER/NAME/FILE or hf://OWNER/NAME@REVISION/FILE'
ADDRESS = re.compile(r'hf://([^/@]+/[^/@]+)(?:@(refs/\w+/[^/]+|[^/]+))?/(.*[^/])')
OTHER_KINDS = ('buckets', 'datasets', 'spaces')


class HubFile(NamedTuple):
    """A file in a model's repository; `revision` is a branch, a tag or a commit."""

    repository: str
    name: str
    revision: str = 'main'

    def __str__(self) -> str:
        revision = '' if self.revision == 'main' else f'@{self.revision}'
        return f'{HUB_URL}{self.repository}{revision}/{self.name}'


def parse_address(address: str) -> HubFile:
    """The file that `hf://OWNER/NAME[@REVISION]/FILE` means; in the revision a slash may be `%2F`.

    Raises:
        CheckpointError: the address has another form.
    """
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise CheckpointError(f'{address} is no address of a file on the hub: write {FORM}')
    if address.removeprefix(HUB_URL).startswith(tuple(f'{kind}/' for kind in OTHER_KINDS)):
        raise CheckpointError(f'{address} is not in a repository of a model: write {FORM}')
    repository, revision, name = match.groups()
    return HubFile(repository, name, unquote(revision or 'main'))


def is_installed() -> bool:
    return importlib.util.find_spec('huggingface_hub') is not None


def check_installed(address: object) -> None:
    """See that the hub's package is there.

    Raises:
        MissingPackageError: it is not.
    """
    if not is_installed():
        raise MissingPackageError(
            f'{address}: huggingface_hub, which reads it, is not installed: pip install huggingface_hub, '
            'or download the file and give its path'
        )


def download(file: HubFile) -> Path:
    """The path of a file in the hub's cache, where it is put if it is not there.

    Raises:
        MissingPackageError: huggingface_hub is not installed.
        CheckpointError: there is no such repository, revision or file, or no access to it.
        DownloadError: the server cannot be reached, or the connection broke.
        NoSpaceError: the file does not fit into the cache.
    """
    check_installed(file)
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(file.repository, file.name, revision=file.revision))
    except (
        Exception
    ) as error:  # of the hub, of its HTTP library (which differs by release), of the disk
        raise _explained(file, error) from error


def find_cached(file: HubFile) -> Path | None:
    """Where a file is in the hub's cache, without asking the server whether there is a newer one."""
    check_installed(file)
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(file.repository, file.name, revision=file.revision)
    return Path(path) if isinstance(path, str) else None


def _explained(file: HubFile, error: Exception) -> UserError:
    """What to raise in the place of an error of `hf_hub_download`."""
    from huggingface_hub import constants, errors

    page = f'{constants.ENDPOINT}/{file.repository}'
    log_in = 'log in (hf auth login) or set HF_TOKEN'
    by_hand = 'download the file elsewhere and give its path'
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f'{file}: access to it is restricted. Ask for it on {page}, then {log_in}'
        )
    if isinstance(error, errors.RepositoryNotFoundError) or _status(error) in (401, 403):
        return CheckpointError(
            f'{file}: there is no such repository on {constants.ENDPOINT}, or it is private. Check the '
            f'name; for a private one, {log_in}'
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return CheckpointError(
            f'{file}: the repository has no revision {file.revision}. See its branches and tags on {page}'
        )
    if isinstance(error, errors.HFValidationError):
        return CheckpointError(f'{file} is no address of a file on the hub: write {FORM}')
    if isinstance(error, errors.LocalEntryNotFoundError):
        where = f'{file} is not in the cache ({constants.HF_HUB_CACHE})'
        if constants.HF_HUB_OFFLINE:
            return DownloadError(
                f'{where}, and HF_HUB_OFFLINE forbids to fetch it: unset it, or {by_hand}'
            )
        return DownloadError(
            f'{where}, and {constants.ENDPOINT} does not give it ({_first_line(error.__cause__ or error)}).\n'
            f'Check the connection, set HF_ENDPOINT to a mirror, or {by_hand}'
        )
    if isinstance(error, errors.EntryNotFoundError):
        return CheckpointError(
            f'{file}: the repository has no file {file.name}. See {page}/tree/main'
        )
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        elsewhere = 'set HF_HUB_CACHE to a folder on another disk'
        return no_space_error(error, constants.HF_HUB_CACHE, elsewhere=elsewhere)
    if isinstance(error, PermissionError):
        return DownloadError(
            f'{file} cannot be put into the cache ({error}). Set HF_HUB_CACHE to a folder of yours'
        )
    return DownloadError(
        f'{file} cannot be downloaded ({_first_line(error)}). Try again, or {by_hand}'
    )


def _first_line(error: BaseException) -> str:
    line = f'{type(error).__name__}: {str(error).strip()}'.partition('\n')[0]
    return textwrap.shorten(line, 120, placeholder=' ...')


def _status(error: Exception) -> int | None:
    """The number that a server answered with, of an error that carries its answer."""
    return getattr(getattr(error, 'response', None), 'status_code', None)
