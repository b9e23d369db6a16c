"""A job's model and tokenizer, made the same way in every program. Owns their making; does not own weights of a version.

`build_model` gives initial weights (the learner's version 0), `build_architecture` the same module without a promise about its
weights (a rollout or scorer loads a version over it), `build_tokenizer` the ids, `policy_tensors` what a version consists of,
`save_pretrained` the Hugging Face folder.
"""

from asyncppo_runtime.policy.errors import EncodingError
from asyncppo_runtime.policy.export import save_pretrained
from asyncppo_runtime.policy.model import build_architecture, build_model, torch_dtype
from asyncppo_runtime.policy.state import policy_tensors, tied_names
from asyncppo_runtime.policy.tokenizer import PolicyTokenizer, build_tokenizer

__all__ = [
    "EncodingError",
    "PolicyTokenizer",
    "build_architecture",
    "build_model",
    "build_tokenizer",
    "policy_tensors",
    "save_pretrained",
    "tied_names",
    "torch_dtype",
]
