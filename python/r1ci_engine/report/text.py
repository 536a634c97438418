"""Model text made harmless to look at.

A model can print anything: terminal escapes that repaint the screen or the clipboard, carriage
returns that hide what stood before, marks that reverse reading order. Nothing of this reaches a
terminal or a page; what is there is shown by its escape instead of being dropped.
"""

import unicodedata

# Cc control, Cf invisible format (reading order, zero width), Cs lone surrogates,
# Zl and Zp line ends that only some programs honour.
_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(text: str) -> str:
    """`text` with every control and invisible character but newline and tab spelt out.

    The result is plain: escape codes have the form `\\x1b` or `\\u202e`. A backslash that was
    there before is left alone, since the text is for reading and not for parsing back.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in _UNSAFE
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def shorten(text: str, limit: int) -> str:
    """At most about `limit` characters: head and tail kept, the cut stated between them."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}\n[... {len(text) - limit} characters not shown ...]\n{text[-tail:]}"


def one_line(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, white space run together."""
    line = " ".join(visible(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
