"""torchrun without the traceback of its own with which it reports that a process failed.

The process has said on stderr what went wrong; torchrun's forty lines would only push it out of
sight. Options and behaviour are those of `python -m torch.distributed.run`.
"""

import sys

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == '__main__':
    try:
        main()
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(max(failure.exitcode, 1))  # negative: ended by a signal
