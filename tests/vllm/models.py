"""Small pretrained folders of the shapes that have gone wrong before: tied heads, grouped queries, biases."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from asyncppo_runtime.policy.symbols import symbol_tokenizer

VOCABULARY = 67


def tied_qwen2(folder: Path, seed: int = 0) -> dict[str, Any]:
    """A Qwen2 with a tied output head, grouped queries and biases, written to `folder`; returns its `model` part of a spec."""
    tied_model(seed).save_pretrained(folder)
    symbol_tokenizer([f"w{index}" for index in range(VOCABULARY - 3)]).save_pretrained(folder)
    return {"pretrained": str(folder)}


def tied_model(seed: int) -> PreTrainedModel:
    """The same shape with other weights."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()
