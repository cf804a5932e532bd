"""tokenizer.json and tokenizer_config.json from the metadata of a GGUF file.

Two kinds are understood, named by tokenizer.ggml.model:
  gpt2   byte-level BPE with a list of merges; tokenizer.ggml.pre names how text is split into words first
  llama  SentencePiece BPE: pieces with scores and no merges. SentencePiece joins the adjacent pair whose joint piece
         scores best, so every split of a piece into two pieces is a merge, ranked by the score of the piece.
"""

import sys

from gguf_metadata import UnreadableModel

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
SPACE = "\u2581"  # SentencePiece's visible space


def byte_level(use_regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def split_by(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def in_sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def words_with_digit_runs(digits):
    """The word pattern of Llama 3 and Qwen 2, which differ in how many digits go together."""
    return (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits +
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


GPT2 = {"pre_tokenizer": byte_level(use_regex=True)}
SMOLLM = {"pre_tokenizer": in_sequence({"type": "Digits", "individual_digits": True}, byte_level(use_regex=True))}
LLAMA3 = {"pre_tokenizer": in_sequence(split_by(words_with_digit_runs(r"\p{N}{1,3}")), byte_level(use_regex=False)),
          "ignore_merges": True, "add_bos": True}
QWEN2 = {"pre_tokenizer": in_sequence(split_by(words_with_digit_runs(r"\p{N}")), byte_level(use_regex=False)),
         "normalizer": {"type": "NFC"}}

PRE_TOKENIZERS = {"gpt-2": GPT2, "smollm": SMOLLM, "llama-bpe": LLAMA3, "llama3": LLAMA3, "llama-v3": LLAMA3,
                  "qwen2": QWEN2}


def convert(metadata, pre=None):
    """Returns the contents of tokenizer.json and tokenizer_config.json; `pre` overrides tokenizer.ggml.pre."""
    kind = metadata.require("tokenizer.ggml.model")
    tokens = metadata.require("tokenizer.ggml.tokens")
    types = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    require_one_each("tokenizer.ggml.token_type", types, tokens)
    if kind == "gpt2":
        parts = byte_level_parts(metadata, tokens, pre)
    elif kind == "llama":
        parts = sentencepiece_parts(metadata, tokens, types)
    else:
        raise UnreadableModel(f'the tokenizer model "{kind}" is not supported; supported: gpt2, llama')

    special = special_tokens(metadata, tokens)
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", parts.pop("add_bos")) and special["bos_token"] is not None
    add_eos = metadata.get("tokenizer.ggml.add_eos_token", False) and special["eos_token"] is not None
    added = added_tokens(tokens, types, special)
    post_processor = template(special["bos_token"] if add_bos else None, special["eos_token"] if add_eos else None, tokens)
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                 "normalizer": parts["normalizer"], "pre_tokenizer": parts["pre_tokenizer"],
                 "post_processor": post_processor or parts["post_processor"],
                 "decoder": parts["decoder"], "model": parts["model"]}
    return tokenizer, tokenizer_config(metadata, added, special, add_bos, add_eos)


def byte_level_parts(metadata, tokens, pre):
    rules = pre_tokenizer_rules(pre or metadata.get("tokenizer.ggml.pre", "default"))
    merges = [merge.split(" ", 1) for merge in metadata.require("tokenizer.ggml.merges")]
    if any(len(pair) != 2 for pair in merges):
        raise UnreadableModel('"tokenizer.ggml.merges" has an entry that is not two tokens with a space between')
    return {"normalizer": rules.get("normalizer"), "pre_tokenizer": rules["pre_tokenizer"],
            "post_processor": byte_level(use_regex=True), "decoder": byte_level(use_regex=True),
            "model": bpe(tokens, merges, ignore_merges=rules.get("ignore_merges", False)),
            "add_bos": rules.get("add_bos", False)}


def pre_tokenizer_rules(name):
    if name == "default":
        print('note: the file names no pre-tokenizer; GPT-2\'s is used (--pre NAME chooses another)', file=sys.stderr)
        return GPT2
    if name not in PRE_TOKENIZERS:
        raise UnreadableModel(f'the pre-tokenizer "{name}" is not supported; supported: {", ".join(PRE_TOKENIZERS)}')
    return PRE_TOKENIZERS[name]


def sentencepiece_parts(metadata, tokens, types):
    scores = metadata.require("tokenizer.ggml.scores")
    require_one_each("tokenizer.ggml.scores", scores, tokens)
    prefix_space = metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    normalizers = [{"type": "Prepend", "prepend": SPACE}] if prefix_space else []
    decoders = [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}]
    if prefix_space:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    unknown = token_of(metadata, "tokenizer.ggml.unknown_token_id", tokens, 0)
    return {"normalizer": {"type": "Sequence", "normalizers": normalizers + [spaces]}, "pre_tokenizer": None,
            "post_processor": None, "decoder": {"type": "Sequence", "decoders": decoders},
            "model": bpe(tokens, merges_from_scores(tokens, types, scores), unknown=unknown),
            "add_bos": True}


def merges_from_scores(tokens, types, scores):
    """All splits of each piece into two pieces, best score first; splits of one piece in the order of their ids."""
    pieces = {token: index for index, token in enumerate(tokens) if types[index] in (NORMAL, USER_DEFINED, UNUSED)}
    ranked = []
    for piece, index in pieces.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in pieces and right in pieces:
                ranked.append((-scores[index], pieces[left], pieces[right], [left, right]))
    return [pair for *_, pair in sorted(ranked)]


def bpe(tokens, merges, unknown=None, ignore_merges=False):
    sentencepiece = unknown is not None
    return {"type": "BPE", "dropout": None, "unk_token": unknown, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": sentencepiece, "byte_fallback": sentencepiece,
            "ignore_merges": ignore_merges, "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": merges}


def special_tokens(metadata, tokens):
    ids = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    return {name: token_of(metadata, f"tokenizer.ggml.{key}_token_id", tokens) for name, key in ids.items()}


def token_of(metadata, key, tokens, default=None):
    index = metadata.get(key, default)
    if index is None:
        return None
    if not 0 <= index < len(tokens):
        raise UnreadableModel(f'"{key}" is {index}, and the vocabulary has {len(tokens)} tokens')
    return tokens[index]


def require_one_each(key, values, tokens):
    if len(values) != len(tokens):
        raise UnreadableModel(f'"{key}" has {len(values)} entries for {len(tokens)} tokens')


def added_tokens(tokens, types, special):
    """Tokens that text is searched for before it is split: special ones, and those that a user added."""
    is_special = [kind in (CONTROL, UNKNOWN) or token in special.values() for token, kind in zip(tokens, types)]
    return [{"id": index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": is_special[index]}
            for index, token in enumerate(tokens) if is_special[index] or types[index] == USER_DEFINED]


def template(bos, eos, tokens):
    """A post-processor that puts BOS before and EOS after each text, or None when there is nothing to add."""
    if bos is None and eos is None:
        return None

    def around(sequence, type_id):
        as_special = lambda token: [] if token is None else [{"SpecialToken": {"id": token, "type_id": type_id}}]
        return as_special(bos) + [{"Sequence": {"id": sequence, "type_id": type_id}}] + as_special(eos)

    ids = {token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]} for token in (bos, eos) if token}
    return {"type": "TemplateProcessing", "single": around("A", 0), "pair": around("A", 0) + around("B", 1),
            "special_tokens": ids}


def tokenizer_config(metadata, added, special, add_bos, add_eos):
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": bool(add_bos),
              "add_eos_token": bool(add_eos), **special,
              "model_max_length": metadata.get("llama.context_length"), "clean_up_tokenization_spaces": False,
              "chat_template": metadata.get("tokenizer.chat_template"),
              "added_tokens_decoder": {str(token["id"]): {key: value for key, value in token.items() if key != "id"}
                                       for token in added}}
    return {key: value for key, value in config.items() if value is not None}
