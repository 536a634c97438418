"""Chat templates: messages to prompt tokens, and the tokens between two assistant turns.

A template is code from the model's author. It runs in jinja2's immutable sandbox with the few
helpers that published templates call, and with bounds on what it counts through, multiplies and
writes; whatever it raises is a ModelError. No clock stops it: loops over long texts may be slow.

Left out: tool schemas, documents, images, rendering with generation masks. Masks come from the
trajectory, never from a template.

Invariant: a conversation grows by appending. `turn_tokens` never renders what was sampled; it
refuses a template whose rendering of a longer conversation does not begin with the shorter one,
because such a model would see another history in training than in use.
"""

import json
import logging
from collections.abc import Mapping, Sequence, Sized
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range

from r1ci_engine.errors import ModelError
from r1ci_engine.model.tokenizer import TextTokenizer, load_tokenizer_config, token_content

logger = logging.getLogger(__name__)

Message = Mapping[str, str]
"""`{"role": "system" | "user" | "assistant", "content": text}`"""

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Used when a folder brings no template."""

_REPLIES = (
    "First reply.",
    "<think>\nA thought.\n</think>\n\nSecond reply.\n```python\nprint(1)\n```",
)
"""What assistants write when a template is examined: plain text, then thought and code."""

MOST_CHARACTERS = 10_000_000
"""Length of one rendering, and of a text that is repeated in it."""
MOST_COUNTED = 1_000_000
"""Numbers that all ranges of one rendering may hold together."""
MOST_BITS = 10_000
"""Of a power."""

_SLOT = "\u2402content\u2403"
"""Stands for the user's text while a template is examined; no template produces it."""


class ChatTemplate:
    """A compiled template together with the tokenizer its output is for."""

    def __init__(
        self,
        source: str,
        tokenizer: TextTokenizer,
        special_tokens: Mapping[str, str] | None = None,
        origin: str = "chat template",
    ) -> None:
        """`special_tokens` has what templates print by name, such as `bos_token`."""
        self.tokenizer = tokenizer
        self.origin = origin
        self._special_tokens = dict(special_tokens or {})
        environment = self._environment = _Environment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # a deep nest overruns the parser's stack
            raise ModelError(f"`{origin}` is not a valid template: {_cause(error)}") from error

    @classmethod
    def load(cls, folder: Path | str, tokenizer: TextTokenizer) -> "ChatTemplate":
        """Read `chat_template.jinja`, else the template in `tokenizer_config.json`, else ChatML."""
        folder = Path(folder)
        config_path, file_path = folder / "tokenizer_config.json", folder / "chat_template.jinja"
        config = load_tokenizer_config(folder)
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        special = {name: content for name in names if (content := token_content(config.get(name)))}
        if file_path.exists():
            try:
                source = file_path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ModelError(f"`{file_path}` cannot be read: {error}") from error
            return cls(source, tokenizer, special, str(file_path))
        source = _default_template(config.get("chat_template"), config_path)
        if source is None:
            logger.warning("`%s` has no chat template; using ChatML", folder)
            return cls(CHATML, tokenizer, special, "built-in ChatML")
        return cls(source, tokenizer, special, str(config_path))

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """Return the text of a conversation; ModelError with the template's own complaint."""
        self._environment.counted = 0
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                tools=None,
                documents=None,
                **self._special_tokens,
            ):
                pieces.append(piece)
                length += len(piece)
                if length > MOST_CHARACTERS:
                    raise TemplateError(f"it writes more than {MOST_CHARACTERS} characters")
        except Exception as error:  # a template is a program: it may raise anything
            raise ModelError(
                f"`{self.origin}` cannot render this conversation: {_cause(error)}",
                hint="some templates want alternating roles or no system message",
            ) from error
        return "".join(pieces)

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a prompt that ends where the assistant begins.

        The template writes its own BOS or none. Should it print two, one is kept.
        """
        tokens = self.tokenizer.encode_template(self.render(messages))
        bos = self.tokenizer.token_id(self._special_tokens.get("bos_token", ""))
        while bos is not None and tokens[:2] == [bos, bos]:
            tokens = tokens[1:]
        return tokens

    def turn_tokens(self, content: str) -> list[int]:
        """Return the tokens that end an assistant turn, add a user turn and reopen the assistant.

        They follow what the model wrote, which must not end with a stop token. `content` is encoded
        as plain text. Raises ModelError when the template is not append-only.
        """
        before, after = self._turn
        return [
            *self.tokenizer.encode_template(before),
            *self.tokenizer.encode_text(content),
            *self.tokenizer.encode_template(after),
        ]

    @cached_property
    def _turn(self) -> tuple[str, str]:
        """What the template writes between an assistant's text and the user's, and after it."""
        messages = [{"role": "user", "content": "Question."}]
        text = self.render(messages)
        turns = set()
        for reply in _REPLIES:
            messages += [
                {"role": "assistant", "content": reply},
                {"role": "user", "content": _SLOT},
            ]
            longer = self.render(messages)
            if not longer.startswith(text + reply):
                raise ModelError(
                    f"`{self.origin}` rewrites earlier turns, so a conversation cannot grow "
                    "by appending tokens",
                    hint='use feedback = "inline", which stays within one assistant turn',
                )
            turns.add(longer.removeprefix(text + reply))
            text = longer
        turn = turns.pop()
        if turns or turn.count(_SLOT) != 1:
            raise ModelError(
                f"`{self.origin}` writes different turns at different places",
                hint='use feedback = "inline", which stays within one assistant turn',
            )
        before, _, after = turn.partition(_SLOT)
        return before, after


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with bounds on how much work and memory a few characters can ask for."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.counted = 0
        self.globals["range"] = self._range

    def _range(self, *bounds: int) -> range:
        numbers = safe_range(*bounds)
        self.counted += len(numbers)
        if self.counted > MOST_COUNTED:
            raise TemplateError(f"its ranges hold more than {MOST_COUNTED} numbers")
        return numbers

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse a long repetition and a high power before they take the memory."""
        are_integers = isinstance(left, int) and isinstance(right, int)
        if operator == "**" and are_integers and left.bit_length() * right > MOST_BITS:
            raise SecurityError(f"it asks for a power of more than {MOST_BITS} bits")
        for text, count in ((left, right), (right, left)) if operator == "*" else ():
            length = len(text) if isinstance(text, Sized) else 0
            if isinstance(count, int) and length * count > MOST_CHARACTERS:
                raise SecurityError(f"it repeats a text to more than {MOST_CHARACTERS}")
        return super().call_binop(context, operator, left, right)


def _cause(error: Exception) -> str:
    if isinstance(error, TemplateError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _default_template(value: Any, path: Path) -> str | None:
    """The template of a tokenizer config: a string, or a list of named ones with a default."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        named = {str(e.get("name")): e.get("template") for e in value if isinstance(e, dict)}
        if isinstance(named.get("default"), str):
            return named["default"]
    raise ModelError(f"`{path}` has a `chat_template` without a default")


def _to_json(value: Any, indent: int | None = None) -> str:
    """Plain JSON; jinja2's own filter would escape `<` and `&` for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """The day a template may print, held fixed: a run resumed tomorrow has the same prompts."""
    return datetime(2025, 1, 1).strftime(pattern)
