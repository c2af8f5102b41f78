"""What a training script does around its training: quiet libraries, plain words for what went wrong, an orderly end."""

import sys
import warnings
from collections.abc import Callable
from typing import Any

import datasets
from faults import explain
from ranks import RANK, tear_down
from transformers.utils import logging


def run(train: Callable[[Any], int], options: Any) -> int:
    """Carry out a training; return its exit code, 1 if it failed by an error with a known remedy."""
    # renamings inside transformers that only its neighbours can follow
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|trl|peft|accelerate)\b")
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    if RANK != 0:
        logging.set_verbosity_error()
    failed = True
    try:
        code = train(options)
        failed = False
    except Exception as error:
        known = explain(error, options)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr, flush=True)
        return 1
    else:
        return code
    finally:
        tear_down(failed=failed)
