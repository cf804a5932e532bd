"""Small random tokenizers and random texts, with what the `tokenizers` library makes of them.

    random_tokenizers.py COUNT SEED     a JSON object a line:
    {"seed": 7, "tokenizer": {tokenizer.json}, "cases": [{"text": ..., "parse": [ids], "plain": [ids], "decoded": ..., "bare": ...}]}

`parse` is the encoding with its special tokens found and the template applied. `plain` is what the tokenizer gives once its special
tokens are taken out of it, from the model's vocabulary too, so that text which spells one is ordinary text; it is absent where
taking them out would change more than that. `decoded` and `bare` are the text of `parse` with special tokens and without. A case
that the library refuses has "parse": null, a text that it cannot decode "decoded": null.
"""

import copy
import json
import os
import random
import resource
import signal
import sys

from tokenizers import Tokenizer

LETTERS = list("abcdeABé漢ß")
ODD = ["▁", "²", "½", "Ⅷ", "\u0301", "\u200d", "\u200c", "İ", "Σ", "ﬁ", "_", "7", "42", "\U0001f600", "\u00a0", "\u2003", "\u180e", "\u0085",
       "\x1c", "\ufeff", "\u1100\u1161", "\u0345", "\u24b6", "\u0000"]
MARKS = list(".,-'!<>|$")
SPACES = [" ", "  ", "\n", "\t", "\r\n"]


def byte_alphabet():
    printing = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printing]
    return {**{b: chr(b) for b in printing}, **{b: chr(0x100 + i) for i, b in enumerate(others)}}


BYTES = byte_alphabet()


def random_word(rng, longest=4):
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(1, longest)))


def merges_of(rng, tokens, count, joins=lambda a, b: True):
    """Merges as training makes them; each joins two tokens that are there. New tokens are added to `tokens`."""
    merges = []
    for _ in range(count):
        left, right = rng.choice(tokens), rng.choice(tokens)
        if len(left + right) > 8 or not joins(left, right) or [left, right] in merges:
            continue
        merges.append([left, right])
        if left + right not in tokens:
            tokens.append(left + right)
    return merges


def word_level(rng):
    words = {"?"} | {random_word(rng) for _ in range(rng.randint(2, 8))} | set(rng.sample(MARKS + ODD, 5))
    words |= set(rng.sample(["<s>", "</s>", "<x>", "▁a", "▁", "a b"], 3))
    words = sorted(words)
    rng.shuffle(words)
    return {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(words)},
            "unk_token": "?" if rng.random() < 0.9 else "none"}


def bpe(rng, spelled=lambda text: text):
    tokens = list(dict.fromkeys(c for piece in rng.sample(LETTERS + ODD + MARKS + ["▁", " "], rng.randint(6, 24))
                                for c in spelled(piece)))
    unknown = rng.random() < 0.6
    if unknown:
        tokens.append("<unk>")
    byte_fallback = rng.random() < 0.5
    if byte_fallback:
        kept = range(256) if rng.random() < 0.7 else rng.sample(range(256), 128)
        tokens += [f"<0x{b:02X}>" for b in kept]
    plain = [t for t in tokens if not t.startswith("<") or len(t) == 1]
    merges = merges_of(rng, plain, rng.randint(0, 14))
    if rng.random() < 0.3:  # a way to build a token that is special
        for left, right in [("<", "x"), ("<x", ">")]:
            plain += [t for t in (*left, *right, left + right) if t not in plain]
            merges.append([left, right])
    tokens += [t for t in plain if t not in tokens]
    if rng.random() < 0.3:
        tokens += [w for w in (random_word(rng), "<s>", "</s>") if w not in tokens]
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>" if unknown else None,
            "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": rng.random() < 0.5,
            "byte_fallback": byte_fallback, "ignore_merges": rng.random() < 0.4,
            "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}


def byte_level_bpe(rng):
    tokens = list(BYTES.values())
    merges = merges_of(rng, tokens, rng.randint(0, 20))
    return {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": rng.random() < 0.3,
            "vocab": {t: i for i, t in enumerate(tokens)}, "merges": merges}


def pattern(rng):
    if rng.random() < 0.5:
        return {"String": rng.choice(["a", " ", "▁", "-", "ab", ".", "''", "é"])}
    return {"Regex": rng.choice([r"\s+", r"\w+|[^\w\s]+", r"a+", r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
                                 r"\d", r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
                                 r"(?=[A-Z])", r"[\p{P}]", r"\W", r"x*", r"\b", r"[[:punct:]]+", r"\p{M}", r"\h"])}


def normalizer(rng):
    kind = rng.choice(["NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace", "Strip", "Lowercase"])
    if kind == "Prepend":
        return {"type": kind, "prepend": rng.choice(["▁", "a", "ab "])}
    if kind == "Replace":
        found = pattern(rng)
        while found.get("Regex") in (r"(?=[A-Z])", r"x*", r"\b"):  # the library does not end at empty matches
            found = pattern(rng)
        return {"type": kind, "pattern": found, "content": rng.choice(["▁", "", "b", "$0", " a"])}
    if kind == "Strip":
        return {"type": kind, "strip_left": rng.random() < 0.5, "strip_right": rng.random() < 0.5}
    return {"type": kind}


BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def pre_tokenizer(rng):
    kind = rng.choice(["Split", "Digits", "Metaspace", "Whitespace", "WhitespaceSplit", "Punctuation"])
    if kind == "Split":
        return {"type": kind, "pattern": pattern(rng), "behavior": rng.choice(BEHAVIORS), "invert": rng.random() < 0.3}
    if kind == "Digits":
        return {"type": kind, "individual_digits": rng.random() < 0.5}
    if kind == "Metaspace":
        return {"type": kind, "replacement": rng.choice("▁▁_"), "prepend_scheme": rng.choice(["always", "first", "never"]),
                "split": rng.random() < 0.5}
    if kind == "Punctuation":
        return {"type": kind, "behavior": rng.choice(BEHAVIORS)}
    return {"type": kind}


def byte_level(rng):
    return {"type": "ByteLevel", "add_prefix_space": rng.random() < 0.5, "trim_offsets": True, "use_regex": rng.random() < 0.6}


def decoder(rng):
    kind = rng.choice(["ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"])
    if kind == "Metaspace":
        return {"type": kind, "replacement": "▁", "prepend_scheme": rng.choice(["always", "first", "never"]),
                "split": True}
    if kind == "Replace":
        return {"type": kind, "pattern": {"String": rng.choice(["▁", "a", " "])}, "content": rng.choice([" ", "", "x"])}
    if kind == "Strip":
        return {"type": kind, "content": rng.choice(" a"), "start": rng.randint(0, 2), "stop": rng.randint(0, 2)}
    return {"type": kind}


def sequence(rng, make, name, longest=3):
    parts = [make(rng) for _ in range(rng.randint(0, longest))]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else {"type": "Sequence", name: parts}


def added_tokens(rng, vocab):
    contents = rng.sample(list(dict.fromkeys(["<s>", "</s>", "<x>", "<think>", "ab", "a", "é", "▁a", " b", "b ", "A B", "<s><x>", "-", "²", "<unk>",
                           random_word(rng), "\n\n"])),
                          rng.randint(0, 7))
    tokens, following = [], len(vocab)
    for content in contents:
        known = content in vocab
        special = content.startswith("<") if rng.random() < 0.8 else rng.random() < 0.5
        tokens.append({"id": vocab[content] if known else following, "content": content,
                       "single_word": rng.random() < 0.2, "lstrip": rng.random() < 0.25, "rstrip": rng.random() < 0.25,
                       "normalized": rng.random() < 0.4, "special": special})
        following += not known
    return sorted(tokens, key=lambda token: token["id"])


def post_processor(rng, added):
    special = [token for token in added if token["special"]]
    if not special or rng.random() < 0.5:
        return None
    sides = [[rng.choice(special) for _ in range(rng.choice([0, 0, 1, 1, 2]))] for _ in range(2)]
    as_item = lambda token: {"SpecialToken": {"id": token["content"], "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [*map(as_item, sides[0]), text, *map(as_item, sides[1])],
            "pair": [text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t["content"]: {"id": t["content"], "ids": [t["id"]], "tokens": [t["content"]]}
                               for side in sides for t in side}}


def random_tokenizer(rng):
    kind = rng.choice(["words", "bpe", "bpe", "bytes"])
    model = {"words": word_level, "bpe": bpe, "bytes": byte_level_bpe}[kind](rng)
    before = sequence(rng, pre_tokenizer, "pretokenizers", 2)
    decode = sequence(rng, decoder, "decoders")
    if kind == "bytes":
        steps = [] if before is None else before.get("pretokenizers", [before])
        before = {"type": "Sequence", "pretokenizers": [*steps, byte_level(rng)]}
        decode = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    added = added_tokens(rng, model["vocab"])
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": sequence(rng, normalizer, "normalizers", 2), "pre_tokenizer": before,
            "post_processor": post_processor(rng, added), "decoder": decode, "model": model}


def random_text(rng, added):
    pieces = [token["content"] for token in added] or [""]
    kinds = [lambda: rng.choice(LETTERS), lambda: random_word(rng), lambda: rng.choice(SPACES), lambda: rng.choice(SPACES),
             lambda: rng.choice(ODD), lambda: rng.choice(MARKS), lambda: rng.choice(pieces), lambda: rng.choice(pieces)]
    return "".join(rng.choice(kinds)() for _ in range(rng.randint(0, 14)))


def without_special(tokenizer):
    """The tokenizer as if its model knew no special tokens, and its ids as those of the whole one; None where more than that would
    change."""
    bare = copy.deepcopy(tokenizer)
    model, special = bare["model"], {t["content"] for t in bare["added_tokens"] if t["special"]}
    vocab = model["vocab"]
    if model.get("unk_token") in special:
        return None
    reachable = lambda token: len(token) == 1 and model["type"] == "BPE"
    other_spelling = model.get("unk_token") or (model.get("byte_fallback") and
                                                all(f"<0x{b:02X}>" in vocab for b in range(256)))
    if any(reachable(token) for token in special if token in vocab) and not other_spelling:
        return None
    if any(t.startswith("<0x") for t in special):
        return None
    ids = [i for t, i in sorted(vocab.items(), key=lambda item: item[1]) if t not in special]
    model["vocab"] = {t: ids.index(i) for t, i in vocab.items() if t not in special}
    for token in bare["added_tokens"]:
        original = token["id"]
        token["id"] = model["vocab"].get(token["content"], len(ids))
        if token["id"] == len(ids):
            ids.append(original)
    if "merges" in model:
        model["merges"] = [m for m in model["merges"] if m[0] + m[1] not in special and not special & set(m)]
    bare["post_processor"] = None
    return bare, ids


class Oracle:
    def __init__(self, tokenizer):
        self.whole = Tokenizer.from_str(json.dumps(tokenizer))
        normalize = self.whole.normalizer.normalize_str if self.whole.normalizer else str
        sought = [normalize(token["content"]) for token in tokenizer["added_tokens"] if token["normalized"]]
        if len(set(sought)) < len(sought):
            raise ValueError("the normalizer makes one of two tokens: which is found is left to chance")
        self.normalized = {token["id"] for token in tokenizer["added_tokens"] if token["normalized"]}
        bare = without_special(tokenizer)
        self.bare = None
        if bare:
            self.bare = Tokenizer.from_str(json.dumps(bare[0]))
            self.bare.encode_special_tokens = True
            self.ids = bare[1]

    def case(self, text):
        ids = outcome(lambda: self.whole.encode(text).ids)
        case = {"text": text, "parse": ids}
        if ids is None:
            return case
        if not self.normalized & set(ids):  # 0.23 decodes these as the normalizer spells them, 0.22 as they are
            for name, skip in [("decoded", False), ("bare", True)]:
                case[name] = outcome(lambda: self.whole.decode(ids, skip_special_tokens=skip))
        plain = outcome(lambda: self.bare.encode(text, add_special_tokens=False).ids) if self.bare else None
        if plain is not None:
            case["plain"] = [self.ids[i] for i in plain]
        return case


def outcome(ask):
    """What the library answers; None where it refuses, or panics."""
    try:
        return ask()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return None


def print_cases(seed):
    rng = random.Random(seed)
    tokenizer = random_tokenizer(rng)
    oracle = outcome(lambda: Oracle(tokenizer))
    if oracle is None:  # a panic of the library, or left to chance
        return
    cases = [oracle.case(random_text(rng, tokenizer["added_tokens"])) for _ in range(8)]
    print(json.dumps({"seed": seed, "tokenizer": tokenizer, "cases": cases}, separators=(",", ":")), flush=True)


def main():
    count, first = int(sys.argv[1]), int(sys.argv[2])
    for seed in range(first, first + count):
        child = os.fork()  # at some tokenizers the library takes all memory, or does not end
        if child == 0:
            resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
            signal.alarm(10)
            print_cases(seed)
            os._exit(0)
        os.waitpid(child, 0)


main()
