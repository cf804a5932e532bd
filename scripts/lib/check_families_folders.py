"""Model folders as they are published, at reduced sizes: config.json with every key of the original, random weights, a
tokenizer of the family's kind, and text to train on."""

import json
import random
from pathlib import Path

import torch
import transformers
from random_models import randomise
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM

PUBLISHED = Path(__file__).resolve().parents[2] / "tests/golden/published.json"
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]  # in the places that `reduced` gives them
WORDS = """amber barge cedar dunes ember fjord grove heron inlet jetty kelp lagoon marsh nettle otter pebble quay reed
    shoal tide umbra vale willow yarrow zephyr counted carried found lost mended sold under over beside before after
    seven twelve thirty forty the a that with for and but""".split()

# A change of the configuration that must show in the logits: were the key not heeded, what is compared would differ by as much.
COUNTS = {
    "Llama-3.2-1B": {"rope_scaling": None},
    "Mistral-7B-v0.1": {"sliding_window": None},
    "Mistral-7B-v0.3": {"sliding_window": 24},
    "Qwen2.5-0.5B": {"use_sliding_window": True, "max_window_layers": 0},
    "Qwen3-0.6B": {"rope_theta": 10000.0},
    "SmolLM3-3B": {"no_rope_layers": [1] * 8},
}


def reduced_configs():
    """Name and config.json of each: the published keys in the published order, with the sizes of `reduced`."""
    shapes = json.loads(PUBLISHED.read_text())
    return {name: {**shape["published"], **shape["reduced"]} for name, shape in shapes.items()}


def published_model(name):
    """config.json as it is published, and the number of parameters that published.json says."""
    shape = json.loads(PUBLISHED.read_text())[name]
    return shape["published"], shape["parameters"]


def make_folder(folder, name, config, seed):
    """folder/model as published, folder/config-5/config.json as this version of transformers writes it, train.jsonl, eval.jsonl."""
    texts = sentences(400, seed)
    write_records(folder / "train.jsonl", texts[:320])
    write_records(folder / "eval.jsonl", texts[320:336])
    model = folder / "model"
    write_config(model, config)
    drawn = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    randomise(drawn, seed)
    drawn.to(torch.bfloat16).save_pretrained(model)
    (folder / "config-5").mkdir()
    (model / "config.json").rename(folder / "config-5/config.json")
    write_config(model, config)
    make_tokenizer(name, texts).save_pretrained(model)


def write_config(folder, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def sentences(count, seed):
    """Documents of about 40 words: longer in tokens than the reduced window, shorter than a row."""
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(30, 45))) + "." for _ in range(count)]


def write_records(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


# ---- tokenizers ----------------------------------------------------------------------------------------------------------

def make_tokenizer(name, texts):
    """Mistral's is SentencePiece-like with BOS, Llama 3's byte-level with BOS, the others' byte-level without."""
    if name.startswith("Mistral"):
        tokenizer = sentencepiece(texts)
    else:
        tokenizer = byte_level(texts)
    if name.startswith(("Mistral", "Llama")):
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    bos = {} if name.startswith(("Qwen", "SmolLM3")) else {"bos_token": "<s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", **bos)


def byte_level(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    learn(tokenizer, texts, 340, pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def sentencepiece(texts):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for learning alone
    learn(tokenizer, texts, 160, [])
    tokenizer.pre_tokenizer = None
    return tokenizer


def learn(tokenizer, texts, size, alphabet):
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False))
