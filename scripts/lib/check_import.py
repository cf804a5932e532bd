"""Compares an imported folder with transformers reading the same GGUF file; exits 1 when the logits differ."""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = """The lighthouse keeper counted 37 boats before breakfast, which was unusual for a Tuesday in November. "Forty-two
would be a record," she said, and wrote the number in her book; then she climbed the 214 steps to the lamp room, where the
glass had to be cleaned of salt, and watched the last of them round the cape into the grey open sea beyond the reef."""
TOKENS = 64
TOLERANCE = 1e-4


def main():
    options = parse_arguments()
    ids = AutoTokenizer.from_pretrained(options.folder)(TEXT, return_tensors="pt").input_ids[:, :TOKENS]
    imported = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32, attn_implementation="eager")
    logits, loss = evaluate(imported, ids)
    del imported
    original = AutoModelForCausalLM.from_pretrained(options.model.parent, gguf_file=options.model.name,
                                                    dtype=torch.float32, attn_implementation="eager")
    expected, expected_loss = evaluate(original, ids)
    difference = ((logits - expected).abs().max() / expected.abs().max()).item()
    print(f"logits {list(logits.shape)}: max |a-b| / max |b| = {difference:.2e}; "
          f"loss {loss.item():.6f}, transformers on the GGUF file {expected_loss.item():.6f}")
    if options.texts:
        compare_tokenizers(options)
    if options.save:
        save_file({"input_ids": ids.int(), "logits": expected.contiguous(), "loss": expected_loss.reshape(1)}, options.save)
    sys.exit(0 if difference <= TOLERANCE else 1)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="check_import", description=__doc__)
    parser.add_argument("model", metavar="MODEL.gguf", type=Path)
    parser.add_argument("folder", metavar="DIR", type=Path, help="what import_gguf made of it")
    parser.add_argument("--texts", metavar="FILE.jsonl", type=Path, nargs="*", default=[],
                        help="every string in the first 200 lines of these files is encoded by both tokenizers")
    parser.add_argument("--save", metavar="FILE", type=Path, help="keeps ids, logits and loss of the GGUF model")
    return parser.parse_args()


def evaluate(model, ids):
    with torch.no_grad():
        result = model(ids, labels=ids)
    return result.logits, result.loss


def compare_tokenizers(options):
    ours = AutoTokenizer.from_pretrained(options.folder)
    theirs = AutoTokenizer.from_pretrained(options.model.parent, gguf_file=options.model.name)
    texts = sorted({text for file in options.texts for text in strings_in(file)})
    differing = [text for text in texts if ours(text).input_ids != theirs(text).input_ids]
    with_digits = [text for text in differing if any(character.isnumeric() for character in text)]
    unfaithful = [text for text in texts if ours.decode(ours(text).input_ids, skip_special_tokens=True) != text]
    print(f"{len(texts)} texts: {len(differing)} encoded differently, {len(with_digits)} of these hold digits; "
          f"{len(unfaithful)} do not decode to themselves")
    for text in differing[:3] + unfaithful[:3]:
        print("  ", repr(text[:80]), ours.tokenize(text)[:24], theirs.tokenize(text)[:24])


def strings_in(file):
    def walk(value):
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, dict)):
            for item in value.values() if isinstance(value, dict) else value:
                yield from walk(item)

    for line in file.read_text(encoding="utf-8").splitlines()[:200]:
        yield from walk(json.loads(line))


if __name__ == "__main__":
    main()
