"""Logits of base + PEFT adapter against those of the merged model (see scripts/check_peft_export)."""

import argparse
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

# Of the merged model's stored type: W is rounded once after the merge, which PEFT's sum never is.
TOLERANCE = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 6e-2}


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("peft")
    parser.add_argument("merged")
    arguments = parser.parse_args()

    base, merged = load(arguments.base), load(arguments.merged)
    stored = str(AutoModelForCausalLM.from_pretrained(arguments.merged, dtype="auto").dtype).removeprefix("torch.")
    ids = torch.randint(base.config.vocab_size, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = base(ids).logits
        adapted = PeftModel.from_pretrained(base, arguments.peft).eval()(ids).logits
        difference = merged(ids).logits - adapted
    scale = adapted.abs().max()
    error, effect = (difference.abs().max() / scale).item(), ((plain - adapted).abs().max() / scale).item()
    print(f"adapter against merged ({stored}): {error:.2e} of the largest logit; adapter against base: {effect:.2e}")
    if error > TOLERANCE[stored]:
        sys.exit(f"the two exports differ by more than {TOLERANCE[stored]:g}")


main()
