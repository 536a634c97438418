"""Text to token ids and back, on the `tokenizers` library.

Two ways in, because they carry different trust. `encode_template` is for the output of a chat
template: spellings like `<|im_end|>` become their control ids. `encode_text` is for what programs
and people wrote: the same spellings stay ordinary characters, so tool output can never end a turn.

One way out: bytes. `decode` joins the bytes of the tokens and reads them as UTF-8, so text that
grows token by token is always a prefix of the final text up to its last, perhaps half, character.

Left out: padding, truncation, batching (the batch call starts a thread pool, which does not survive
a fork; single strings do not), automatic BOS, training of tokenizers.

Invariant: nothing sampled is ever tokenised again; decoded text is for parsing and display.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from r1ci_engine.errors import ModelError
from r1ci_engine.model.config import ModelConfig
from r1ci_engine.model.folder import load_stop_ids, read_json

SENTENCEPIECE_SPACE = "\u2581"


class TextTokenizer:
    """A tokenizer with its stop ids; build it with `load`."""

    def __init__(
        self,
        raw: dict[str, Any],
        stop_ids: frozenset[int],
        source: str,
        end_token: str | None = None,
    ) -> None:
        """`end_token` is the stop token a model writes when several would stop it."""
        self._with_controls = _build(raw, source)
        self._plain = _build({**raw, "added_tokens": _plain_added_tokens(raw)}, source)
        self.source = source
        self.stop_ids = stop_ids
        vocabulary = self._with_controls.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        controls = {token["id"]: token["content"] for token in raw.get("added_tokens") or []}
        self._bytes_of = _token_bytes(vocabulary, controls, raw)
        outside = sorted(i for i in stop_ids if i >= self.vocab_size)
        if outside:
            raise ModelError(
                f"stop id `{outside[0]}` is outside the vocabulary of `{source}`",
                hint="generation_config.json and tokenizer.json belong to different models",
            )
        if not stop_ids:
            raise ModelError(
                f"no stop token is named beside `{source}`",
                hint="set `eos_token_id` in generation_config.json",
            )
        preferred = self.token_id(end_token) if end_token else None
        self.end_id = (
            preferred if preferred in stop_ids and preferred is not None else min(stop_ids)
        )
        """The stop id to train on: what ends a turn by the tokenizer's own word."""

    @classmethod
    def load(cls, folder: Path | str) -> "TextTokenizer":
        """Read `tokenizer.json` and the stop ids of a model folder; ModelError if either is bad."""
        path = Path(folder) / "tokenizer.json"
        settings = load_tokenizer_config(folder)
        raw, end_token = read_json(path), settings.get("eos_token")
        return cls(raw, load_stop_ids(folder), str(path), token_content(end_token))

    def encode_text(self, text: str) -> list[int]:
        """Encode text from outside; no control token can come out of it."""
        return self._plain.encode(_well_formed(text), add_special_tokens=False).ids

    def encode_template(self, text: str) -> list[int]:
        """Encode the output of a chat template; control tokens are recognised, none is added."""
        return self._with_controls.encode(_well_formed(text), add_special_tokens=False).ids

    def token_id(self, token: str) -> int | None:
        """Return the id of a token by its exact spelling, control tokens included."""
        return self._with_controls.token_to_id(token)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token stands for; none for ids that only pad the model's head."""
        return self._bytes_of.get(token, b"")

    def decode(self, tokens: list[int]) -> str:
        """Return the text of the tokens; bytes that are not UTF-8 show as U+FFFD."""
        return b"".join(map(self.token_bytes, tokens)).decode("utf-8", errors="replace")

    def require_fit(self, config: ModelConfig) -> None:
        """Raise ModelError when the tokenizer can produce ids that the model has no row for.

        The other way round is fine: published models pad their head to a round number.
        """
        if self.vocab_size > config.vocab_size:
            raise ModelError(
                f"`{self.source}` has ids up to {self.vocab_size - 1}, "
                f"the model's vocabulary ends at {config.vocab_size - 1}",
                hint="tokenizer and weights belong to different models",
            )


def load_tokenizer_config(folder: Path | str) -> dict[str, Any]:
    """Return `tokenizer_config.json`, or an empty dict when the folder has none."""
    path = Path(folder) / "tokenizer_config.json"
    return read_json(path) if path.exists() else {}


def token_content(token: Any) -> str | None:
    """The spelling of a special token, which files give as a string or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _build(raw: dict[str, Any], source: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(json.dumps(raw, ensure_ascii=False))
    except Exception as error:  # the library raises bare Exception for every defect
        raise ModelError(
            f"`{source}` is not a tokenizer: {error}", hint="copy tokenizer.json again"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _plain_added_tokens(raw: dict[str, Any]) -> list[dict[str, Any]]:
    """Keep only the added tokens that are white space: runs of blanks are text, not control."""
    added = raw.get("added_tokens") or []
    return [token for token in added if not token["special"] and token["content"].isspace()]


def _well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON can smuggle into a string and UTF-8 cannot hold."""
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _token_bytes(
    vocabulary: dict[str, int], controls: dict[int, str], raw: dict[str, Any]
) -> dict[int, bytes]:
    """Map every id to its bytes, by the kind of decoder that the tokenizer declares."""
    kinds = _decoder_kinds(raw.get("decoder"))
    to_bytes = str.encode
    if "ByteLevel" in kinds:
        to_bytes = _byte_level_bytes
    elif kinds & {"ByteFallback", "Metaspace"}:
        to_bytes = _sentencepiece_bytes
    table = {token_id: to_bytes(token) for token, token_id in vocabulary.items()}
    return table | {token_id: content.encode() for token_id, content in controls.items()}


def _decoder_kinds(decoder: dict[str, Any] | None) -> set[str]:
    if decoder is None:
        return set()
    nested = [_decoder_kinds(inner) for inner in decoder.get("decoders", [])]
    return {decoder["type"]}.union(*nested)


def _byte_alphabet() -> dict[str, int]:
    """The byte-level alphabet: visible Latin-1 bytes are themselves, the rest follow from U+0100.

    This is the convention of GPT-2's vocabulary, fixed by every file that uses it.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    alphabet = {chr(byte): byte for byte in visible}
    return alphabet | {chr(0x100 + index): byte for index, byte in enumerate(hidden)}


BYTE_OF = _byte_alphabet()
"""Character of a byte-level vocabulary to the byte it stands for."""


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes(BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()  # a word outside the alphabet stands for itself


def _sentencepiece_bytes(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes([int(token[3:5], 16)])
    return token.replace(SENTENCEPIECE_SPACE, " ").encode()
