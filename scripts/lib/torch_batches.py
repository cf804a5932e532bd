"""Batches of sequences behind a common prefix by PyTorch and transformers, in f32. See scripts/bench.

A line of the input is that of llama_engine.py. The prefix's keys and values are computed once and repeated for each sequence, as
`transformers` shares them. No token is chosen: the logits of last tokens are formed, and tokens are drawn before.
"""

import argparse
import copy
import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM, DynamicCache


class Batches:
    def __init__(self, folder):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.prefix, self.prefix_of = None, None
        self.generator = torch.Generator().manual_seed(7)

    def drawn(self, rows, tokens):
        return torch.randint(40000, (rows, tokens), generator=self.generator)

    def read(self, rows, tokens, cache):
        return self.model(input_ids=self.drawn(rows, tokens), past_key_values=cache, use_cache=True, logits_to_keep=1).logits

    def shared(self, batch, tokens):
        """Keys and values of the prefix for each sequence."""
        if self.prefix_of != tokens:
            self.prefix, self.prefix_of = DynamicCache(config=self.model.config), tokens
            if tokens:
                self.read(1, tokens, self.prefix)
        cache = copy.deepcopy(self.prefix)
        if tokens:
            cache.batch_repeat_interleave(batch)
        return cache

    def measure(self, batch, shared, own, new, whole):
        cache = self.shared(batch, shared)
        is_counted = whole or not new
        if not is_counted:
            self.read(batch, own, cache)
        begin, begin_processor = time.perf_counter(), time.process_time()
        if is_counted:
            self.read(batch, own, cache)
        for _ in range(new):
            self.read(batch, 1, cache)
        return {"seconds": time.perf_counter() - begin, "processor_seconds": time.process_time() - begin_processor}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        batches = Batches(options.folder)
        for line in sys.stdin:
            print(json.dumps(batches.measure(*map(int, line.split()))), flush=True)


main()
