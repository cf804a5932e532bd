"""Which characters the `tokenizers` library counts as white space, word characters, punctuation and so on: {"name": [[first, last], ...]}."""

import json

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Digits, Punctuation, Split, Whitespace, WhitespaceSplit

PATTERNS = {"\\w": r"\w", "\\s": r"\s", "\\d": r"\d", "\\p{L}": r"\p{L}", "\\p{N}": r"\p{N}", "\\p{P}": r"\p{P}", "\\p{M}": r"\p{M}",
            "\\h": r"\h"}


def in_pattern(pattern):
    split = Split(Regex(pattern), "removed", invert=True)
    return lambda c: bool(split.pre_tokenize_str(c))


def pieces(pre_tokenizer, count):
    return lambda c: len(pre_tokenizer.pre_tokenize_str(f"a{c}a")) == count


def touches(**flags):
    """Whether an added token takes along, or is kept from being found by, the character before it."""
    tokenizer = Tokenizer(WordLevel({"?": 0}, "?"))
    tokenizer.add_tokens([AddedToken("Q", normalized=False, **flags)])
    wanted = [0] if flags.get("single_word") else [1]
    return lambda c: tokenizer.encode(c + "Q").ids == wanted


def ranges(belongs):
    found = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000 or not belongs(chr(code)):
            continue
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


tests = {name: in_pattern(pattern) for name, pattern in PATTERNS.items()}
tests |= {"Whitespace": pieces(Whitespace(), 1), "WhitespaceSplit": pieces(WhitespaceSplit(), 2),
          "Punctuation": pieces(Punctuation(), 3), "Digits": pieces(Digits(individual_digits=True), 3),
          "single_word": touches(single_word=True), "lstrip": touches(lstrip=True)}
print(json.dumps({name: ranges(test) for name, test in tests.items()}, separators=(",", ":")))
