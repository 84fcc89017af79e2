"""Checkpoints that survive a kill.

MMEngine's CheckpointHook removes the oldest checkpoint before it writes the new one, writes into
the final file and rewrites `last_checkpoint` in place: a process killed at the wrong moment leaves
nothing to resume from. `AtomicCheckpointHook` keeps MMEngine's interface and changes the order and
the way of writing.
"""

import os
from collections import deque
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from unireplknet_mm.files import remove_partial_files, write_bytes, write_text
from unireplknet_mm.weights.reading import CheckpointError


class AtomicLocalBackend(LocalBackend):
    """MMEngine's local files, written so that a file is either the old one or the new one.

    What is written goes to a hidden file in the same folder, is flushed to the disk and takes its name
    in one step (`files.write_bytes`). Registered as `backend_args=dict(backend='atomic_local')`.
    """

    name = 'atomic_local'

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


register_backend(AtomicLocalBackend.name, AtomicLocalBackend, force=True)


class _PostponedRemovals:
    """A file backend that notes what is to be removed instead of removing it."""

    def __init__(self, backend: Any):
        self.backend = backend
        self.paths: list[str] = []

    def remove(self, filepath: str) -> None:
        self.paths.append(str(filepath))

    rmtree = remove

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """CheckpointHook after which there is always a checkpoint to resume from.

    Same arguments as MMEngine's. What differs:

    - A new checkpoint is complete and on the disk before an older one (`max_keep_ckpts`, a former
      best) is removed, and before `last_checkpoint` names it.
    - Checkpoints and `last_checkpoint` in local folders are written through `AtomicLocalBackend`.
      Folders with another backend (`s3://...`, `backend_args`, `file_client_args`) and FlexibleRunner
      strategies, which write by themselves, get the order only.
    - Partial files of a killed run are removed at the start of the next one in the same folder.
    """

    def before_train(self, runner: Runner) -> None:
        out_dir = str(self.out_dir or runner.work_dir)
        is_local = '://' not in out_dir and not self.file_client_args and not self.backend_args
        if is_local:
            self.backend_args = dict(backend=AtomicLocalBackend.name)
        super().before_train(runner)
        if is_main_process():
            folders = {runner.work_dir, self.out_dir} if is_local else {runner.work_dir}
            for partial in [file for folder in folders for file in remove_partial_files(folder)]:
                runner.logger.info(f'Removed {partial}, left by a run that was killed.')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        missing = [key for key in ('meta', 'message_hub') if key not in checkpoint]
        if runner._resume and missing:
            raise CheckpointError(
                f'the checkpoint to resume from holds weights, but no {" and no ".join(missing)} of a '
                'training: to start a new one from them, set load_from instead of --resume'
            )

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # Until the new file is complete, the list in the message hub, which the new file contains,
        # names one checkpoint too many. A run resumed from the new file removes that one.
        kept: list[int] = []
        if self.max_keep_ckpts > 0:
            kept = [kept_step for kept_step in self.keep_ckpt_ids if kept_step != step] + [step]
            runner.message_hub.update_info('keep_ckpt_ids', kept)

        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            last_checkpoint = os.path.join(runner.work_dir, 'last_checkpoint')
            write_text(last_checkpoint, str(self.last_ckpt))

        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts :], self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            if is_main_process():
                for outdated in kept[: -self.max_keep_ckpts]:
                    outdated_name = self.filename_tmpl.format(outdated)
                    self._remove(self.file_backend.join_path(self.out_dir, outdated_name))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        # MMEngine removes the former best first; a name may come again, with the new best behind it.
        backend = self.file_backend
        self.file_backend = postponed = _PostponedRemovals(backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        in_use = {self.last_ckpt, getattr(self, 'best_ckpt_path', None)}
        in_use.update(getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in postponed.paths:
            if path not in in_use:
                self._remove(path)

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # a sharded checkpoint
            self.file_backend.rmtree(path)
