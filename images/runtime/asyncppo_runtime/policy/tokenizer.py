"""The policy's tokenizer: observations to exact ids, sampled ids to text. Owns the boundary between text and ids.

What the model sampled is never encoded again: each method turns only *new* text into ids that are appended. Does not own the
making of the symbol vocabulary (`symbols.py`) nor the order of turns (the agent loop).
"""

from typing import TYPE_CHECKING

import msgspec

from asyncppo.api.job import AsyncPPOJobSpec
from asyncppo.errors import UserError
from asyncppo_runtime.environments.interface import Observation
from asyncppo_runtime.environments.registry import environment_class, where
from asyncppo_runtime.policy.chat import continuation, encode, opening
from asyncppo_runtime.policy.errors import EncodingError
from asyncppo_runtime.policy.source import FIELD, Source, resolve
from asyncppo_runtime.policy.symbols import symbol_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


REMEMBERED = 4096  # texts and turns looked up instead of encoded and decoded again
REMEMBER_CHARACTERS = 64
REMEMBER_IDS = 8
SLACK_CHARACTERS = 4096


class PolicyTokenizer(msgspec.Struct, frozen=True):
    """A Hugging Face tokenizer (`hf`) with what the programs need to know of it.

    stop_token_ids: ids that end a model turn. bos_id is -1 where the model has none. vocab_size counts ids, added ones included.
    most_characters: a text of more cannot fit the job's context.
    """

    hf: "PreTrainedTokenizerBase"
    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int
    stop_token_ids: list[int]
    most_characters: int = 1 << 20
    _encoded: dict[tuple[str, bool], list[int]] = {}
    _decoded: dict[tuple[int, ...], str] = {}

    def first(self, observation: Observation) -> list[int]:
        """Ids of an episode's first observation: the prompt. Raises EncodingError."""
        if observation.token_ids is not None:
            return self._checked(observation.token_ids)
        if observation.messages is not None:
            return opening(self.hf, observation.messages, self.most_characters)
        return self._text(observation.text or "", True)

    def following(self, observation: Observation, turn_ids: list[int]) -> list[int]:
        """Ids appended after the model's turn `turn_ids` (exact, as sampled) for a later observation. Raises EncodingError.

        With messages these are what the chat template puts between the model's words and its next turn; a stop token the model
        has already said is not said twice.
        """
        if observation.token_ids is not None:
            return self._checked(observation.token_ids)
        if observation.messages is not None:
            ids = continuation(self.hf, observation.messages, self.most_characters)
            said = turn_ids[-1] if turn_ids else -1
            return ids[1:] if ids and ids[0] == said and said in self.stop_token_ids else ids
        return self._text(observation.text or "", False)

    def action(self, turn_ids: list[int]) -> str:
        """The text of a model turn, a closing stop token left out."""
        words = tuple(turn_ids[:-1] if turn_ids and turn_ids[-1] in self.stop_token_ids else turn_ids)
        known = self._decoded.get(words)
        if known is None:
            known = str(self.hf.decode(list(words), skip_special_tokens=False, clean_up_tokenization_spaces=False))
            if len(words) <= REMEMBER_IDS:
                if len(self._decoded) >= REMEMBERED:
                    self._decoded.clear()
                self._decoded[words] = known
        return known

    def _text(self, text: str, special: bool) -> list[int]:
        """Short texts come again and again (symbols, prompts of a group); encoding one costs more than looking it up."""
        known = self._encoded.get((text, special))
        if known is None:
            known = encode(self.hf, text, special, self.most_characters)
            if len(text) <= REMEMBER_CHARACTERS:
                if len(self._encoded) >= REMEMBERED:
                    self._encoded.clear()
                self._encoded[text, special] = known
        return list(known)

    def _checked(self, token_ids: list[int]) -> list[int]:
        if any(not 0 <= token < self.vocab_size for token in token_ids):
            raise EncodingError(f"an observation's token_ids must lie in [0, {self.vocab_size})")
        return list(token_ids)


def build_tokenizer(spec: AsyncPPOJobSpec) -> PolicyTokenizer:
    """The job's tokenizer. Raises UserError when it cannot be made (no symbols, no such folder, no end-of-sequence token)."""
    if spec.model.builtin is not None:
        kind = environment_class(spec.environment)
        symbols = getattr(kind, "symbols", None)
        if symbols is None:
            raise UserError(
                f"spec.model.builtin: the environment {kind.__name__} declares no symbols(); use spec.model.pretrained with it"
            )
        try:
            words = list(symbols(spec.environment.parameters))
        except (TypeError, ValueError) as error:
            raise UserError(f"spec.environment.parameters: {kind.__name__} refuses them: {error}") from error
        except BaseException as error:
            raise UserError(f"spec.environment: {kind.__name__}.symbols fails ({where(error)})") from error
        hf = symbol_tokenizer(words)
        return _described(hf, [int(hf.eos_token_id)], spec.sampling.context_length)
    if spec.model.pretrained is None:
        raise UserError("spec.model: name exactly one of builtin and pretrained")
    from transformers import AutoTokenizer

    source = resolve(spec.model.pretrained)
    try:
        hf = AutoTokenizer.from_pretrained(source.name, **source.keywords)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"{FIELD}: no tokenizer can be loaded from {source.name}: {error}") from error
    stops = _stop_tokens(source, hf.eos_token_id)
    if not stops:
        raise UserError(f"{FIELD}: the tokenizer of {source.name} has no end-of-sequence token, a turn could never end")
    described = _described(hf, stops, spec.sampling.context_length)
    _check_rows(source, described)
    return described


def _described(hf: "PreTrainedTokenizerBase", stops: list[int], context_length: int) -> PolicyTokenizer:
    eos = int(hf.eos_token_id) if hf.eos_token_id is not None else stops[0]
    vocabulary = hf.get_vocab()
    longest = max(map(len, vocabulary), default=1)
    return PolicyTokenizer(
        hf=hf,
        vocab_size=max(vocabulary.values(), default=-1) + 1,
        bos_id=int(hf.bos_token_id) if hf.bos_token_id is not None else -1,
        eos_id=eos,
        pad_id=int(hf.pad_token_id) if hf.pad_token_id is not None else eos,
        stop_token_ids=stops,
        # each token stands for so many characters at most; blanks between symbols, and what a tokenizer strips, need room too
        most_characters=(longest + 1) * (context_length + 1) + SLACK_CHARACTERS,
    )


def _check_rows(source: Source, tokenizer: PolicyTokenizer) -> None:
    """A token that the model has no row for ends its engine, and the learner. More rows than tokens are common, and harmless."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.name, **source.keywords)
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise UserError(f"{FIELD}: {source.name} is not a causal language model transformers knows: {error}") from error
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if isinstance(rows, int) and tokenizer.vocab_size > rows:
        raise UserError(
            f"{FIELD}: the tokenizer of {source.name} has {tokenizer.vocab_size} token ids, its model rows for {rows}; "
            "resize the model's embeddings (resize_token_embeddings) and save it again, or take the tokens out of the tokenizer"
        )
    beyond = [token for token in tokenizer.stop_token_ids if isinstance(rows, int) and not 0 <= token < rows]
    if beyond:
        raise UserError(
            f"{FIELD}: {source.name} ends a turn with token id {beyond[0]}, and its model has rows for {rows}"
        )


def _stop_tokens(source: Source, eos: int | None) -> list[int]:
    """The tokenizer's end of sequence and those of the model's generation_config (chat models end turns with another one)."""
    from transformers import GenerationConfig

    stops = [] if eos is None else [eos]
    try:
        declared = GenerationConfig.from_pretrained(source.name).eos_token_id
    except OSError:
        declared = None  # the file is optional
    more = [declared] if isinstance(declared, int) else declared or []
    return stops + [token for token in more if token not in stops]
