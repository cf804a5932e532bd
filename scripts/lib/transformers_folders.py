"""Tokenizer folders as `transformers` saves them, and what it makes of a text with each.

    transformers_folders.py save            folders that this version's classes save: a JSON object a line
                                            {"name": ..., "files": {"tokenizer.json": {...}, ...}}
    transformers_folders.py vary < FOLDERS  these folders, and the same with keys that contradict them
    transformers_folders.py read < FOLDERS  {"ids": [...], "bos": "<s>", "eos": "</s>"} of TEXT for each; null for a class of
                                            the other version
    transformers_folders.py join FOLDERS READ_BY_4 READ_BY_5   all of it, a folder a line
"""

import copy
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

TEXT = "ab b"
SPECIAL = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|im_end|>", "<bos>", "<eos>"]
VERSION = int(transformers.__version__.split(".")[0])


def vocabulary(space):
    tokens = [*SPECIAL, space, "a", "b", "ab", space + "b"]
    return {token: i for i, token in enumerate(tokens)}, [("a", "b"), (space, "b")]


def sentencepiece(template=True, prefix=True):
    vocab, merges = vocabulary("▁")
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True))
    before = [normalizers.Prepend("▁")] if prefix else []
    behind = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), *behind])
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(SPECIAL[:3])
    return tokenizer


def byte_level(post_processor=None):
    vocab, merges = vocabulary("Ġ")
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = post_processor or processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(SPECIAL[3:5])
    return tokenizer


def named(bos="<s>", eos="</s>", **others):
    return {"bos_token": bos, "eos_token": eos, **others}


def tokenizers():
    """Name and tokenizer of each folder; the classes are those of the version that runs."""
    around = processors.TemplateProcessing(single="<|im_end|> $A <|endoftext|>", pair="$A $B",
                                           special_tokens=[("<|im_end|>", 4), ("<|endoftext|>", 3)])
    if VERSION == 4:
        generic = lambda tokenizer, **options: transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)
        of = lambda name: getattr(transformers, name + "TokenizerFast")
        yield "llama", of("Llama")(tokenizer_object=sentencepiece(), **named())
        yield "llama that adds EOS", of("Llama")(tokenizer_object=sentencepiece(), add_eos_token=True, **named())
        yield "llama without BOS", of("Llama")(tokenizer_object=sentencepiece(), add_bos_token=False, **named())
        yield "gemma", of("Gemma")(tokenizer_object=sentencepiece(prefix=False), **named("<bos>", "<eos>", pad_token="<unk>", mask_token="<unk>"))
        yield "gpt2", of("GPT2")(tokenizer_object=byte_level())
        yield "gpt2 asked for BOS", of("GPT2")(tokenizer_object=byte_level(), add_bos_token=True)
        yield "qwen2", of("Qwen2")(tokenizer_object=byte_level())
        yield "qwen2 that ends a turn", of("Qwen2")(tokenizer_object=byte_level(), eos_token="<|im_end|>")
        yield "gpt_neox", of("GPTNeoX")(tokenizer_object=byte_level())
    else:
        generic = lambda tokenizer, **options: transformers.TokenizersBackend(tokenizer_object=tokenizer, **options)
        vocab, merges = vocabulary("▁")
        yield "llama", transformers.LlamaTokenizer(vocab=vocab, merges=merges, **named())
        yield "llama that adds BOS", transformers.LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True, **named())
        yield "llama that adds both", transformers.LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=True,
                                                                  add_eos_token=True, **named())
        yield "code llama", transformers.CodeLlamaTokenizer(vocab=vocab, merges=merges, **named())
        yield "gemma", transformers.GemmaTokenizer(vocab=vocab, merges=merges, add_bos_token=True,
                                                   **named("<bos>", "<eos>", pad_token="<unk>", mask_token="<unk>"))
        vocab, merges = vocabulary("Ġ")
        yield "gpt2", transformers.GPT2Tokenizer(vocab=vocab, merges=merges)
        yield "gpt2 that adds BOS", transformers.GPT2Tokenizer(vocab=vocab, merges=merges, add_bos_token=True)
        yield "qwen2", transformers.Qwen2Tokenizer(vocab=vocab, merges=merges)
        yield "gpt_neox", transformers.GPTNeoXTokenizer(vocab=vocab, merges=merges, pad_token="<unk>")
    yield "generic", generic(sentencepiece(), **named())
    yield "generic without a name for BOS", generic(sentencepiece())
    yield "generic without a template", generic(sentencepiece(template=False), **named())
    yield "generic byte level", generic(byte_level(), **named("<|endoftext|>", "<|endoftext|>"))
    yield "generic with another template", generic(byte_level(around), **named("<|endoftext|>", "<|endoftext|>"))


def save():
    for name, tokenizer in tokenizers():
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            files = {path.name: json.loads(path.read_text("utf-8")) for path in sorted(Path(folder).glob("*.json"))
                     if path.name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")}
        emit({"name": f"{name}, saved by transformers {VERSION}", "files": files})


def vary():
    for folder in map(json.loads, sys.stdin):
        emit(folder)
        if folder["files"]["tokenizer.json"]["post_processor"] is None:
            continue
        for value in (True, False):
            other = copy.deepcopy(folder)
            other["name"] += f", keys {str(value).lower()}"
            other["files"]["tokenizer_config.json"].update(add_bos_token=value, add_eos_token=value)
            emit(other)


def read():
    for folder in map(json.loads, sys.stdin):
        with tempfile.TemporaryDirectory() as path:
            for name, content in folder["files"].items():
                (Path(path) / name).write_text(json.dumps(content), "utf-8")
            try:
                tokenizer = transformers.AutoTokenizer.from_pretrained(path)
            except Exception:  # a class of the other version
                emit(None)
                continue
        emit({"ids": tokenizer(TEXT)["input_ids"], "bos": tokenizer.bos_token, "eos": tokenizer.eos_token})


def join():
    files = [map(json.loads, Path(path).read_text("utf-8").splitlines()) for path in sys.argv[2:5]]
    for folder, by_4, by_5 in zip(*files, strict=True):
        emit({"name": folder["name"], "text": TEXT, "by_4": by_4, "by_5": by_5, "files": folder["files"]})


def emit(value):
    print(json.dumps(value, separators=(",", ":")))


{"save": save, "vary": vary, "read": read, "join": join}[sys.argv[1]]()
