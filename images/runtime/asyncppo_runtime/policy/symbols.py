"""A tokenizer of symbols: one id each, words parted by spaces. Owns the built-in model's vocabulary.

In the text form symbols are parted by white space, so decoding and encoding never merge two of them. Ids: 0 `<pad>`, 1 `<bos>`,
2 `<eos>`, then the symbols in the environment's order.
"""

from typing import TYPE_CHECKING

from asyncppo.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SPECIAL = (PAD, BOS, EOS)


def symbol_tokenizer(symbols: list[str]) -> "PreTrainedTokenizerFast":
    """A Hugging Face fast tokenizer over `symbols`; a text's first ids are `<bos>` when special tokens are added.

    Raises UserError for a symbol that is empty, doubled, holds white space or is one of `<pad>`, `<bos>`, `<eos>`.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    for symbol in symbols:
        if not isinstance(symbol, str) or symbol in SPECIAL or symbol.split() != [symbol]:
            raise UserError(
                f"spec.environment: the symbol {symbol!r} is no str, is empty, holds white space or is one of {', '.join(SPECIAL)}"
            )
    if not symbols or len(set(symbols)) != len(symbols):
        raise UserError("spec.environment: an environment needs at least one symbol, each once")
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *symbols])}
    tokenizer = Tokenizer(WordLevel(vocabulary))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS)
