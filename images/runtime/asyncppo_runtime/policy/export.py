"""The trained model as a Hugging Face folder: AutoModelForCausalLM and AutoTokenizer load it. Owns the folder, all or nothing."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from asyncppo_runtime.policy.model import quiet
from asyncppo_runtime.policy.tokenizer import PolicyTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_pretrained(model: "PreTrainedModel", tokenizer: PolicyTokenizer, directory: Path) -> None:
    """Write `model` (safetensors, its own dtype) and its tokenizer to `directory`, replacing an earlier export.

    Written beside and renamed, so a reader never sees half of it. Raises OSError (disk full, no permission).
    """
    beside = directory.with_name(directory.name + ".partial")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    with quiet():
        model.save_pretrained(beside)
    tokenizer.hf.save_pretrained(beside)
    old = directory.with_name(directory.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if directory.exists():
        os.rename(directory, old)
    os.rename(beside, directory)
    shutil.rmtree(old, ignore_errors=True)
