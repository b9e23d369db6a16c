"""Small models with what real ones have: tied embeddings, padded heads, several ends of turn, dropout, tokenizers that do not fit.

Owns their making, at the time of the test. Does not own what must come of them.
"""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
}


def tokenizer(*, template: str | None = None, extra: int = 0) -> PreTrainedTokenizerFast:
    """One id a byte, after the special ones; `extra` tokens behind them."""
    words = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    wrapped.add_tokens([f"<extra_{number}>" for number in range(extra)])
    wrapped.chat_template = template
    return wrapped


def make(name: str, folder: Path) -> Path:
    """Write the model `name` to `folder`."""
    torch.manual_seed(0)
    words = tokenizer(template=TEMPLATE, extra=5 if name == "tokenizer too large" else 0)
    rows = 260
    model: Any
    if name == "tied and padded":
        model = Qwen2ForCausalLM(
            Qwen2Config(vocab_size=rows + 124, tie_word_embeddings=True, bos_token_id=None, eos_token_id=3, **SHAPE)
        )
    elif name == "dropout":
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=rows, n_embd=16, n_layer=1, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=1)
        )
    else:
        model = LlamaForCausalLM(LlamaConfig(vocab_size=rows, bos_token_id=0, eos_token_id=1, **SHAPE))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    if name == "tied and padded":
        GenerationConfig(eos_token_id=[3, 1]).save_pretrained(folder)
    return folder
