"""Passes of llama.cpp (its fork ik_llama.cpp) that continue sequences by a token each. See scripts/bench.

A line of the input is "batch tokens", as of generate_bench --serve. No token is chosen: the logits of each pass are formed, and
the tokens that come next are drawn before.
"""

import argparse
import json
import random
import sys
import time

from ik_llama_cpp import _ctypes_api as llama

PROMPT = 32


class Batch:
    """One llama_batch for up to `most` tokens."""

    def __init__(self, most):
        self.batch = llama.llama_batch_init(most, 0, 1)

    def fill(self, rows):
        """@param rows  (token, position, sequence, whether its logits are wanted)"""
        self.batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            self.batch.token[i], self.batch.pos[i] = token, position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
            self.batch.logits[i] = wanted


def context_of(model, batch, positions, threads):
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_seq_max = batch * positions, max(512, batch * PROMPT), batch
    params.n_threads = params.n_threads_batch = threads
    params.flash_attn = batch == 1  # with several sequences it ends with an assertion that fails (version 0.1.5)
    return llama.llama_init_from_model(model, params)


def decode(context, batch):
    if llama.llama_decode(context, batch.batch) != 0:
        sys.exit("error: llama_decode failed")


def measure(model, batch, tokens, threads):
    draw = random.Random(7)
    context, buffer = context_of(model, batch, PROMPT + tokens + 8, threads), Batch(max(512, batch * PROMPT))
    for s in range(batch):
        buffer.fill([(draw.randrange(40000), p, s, p == PROMPT - 1) for p in range(PROMPT)])
        decode(context, buffer)
    begin, begin_processor = time.perf_counter(), time.process_time()
    for position in range(PROMPT, PROMPT + tokens):
        buffer.fill([(draw.randrange(40000), position, s, True) for s in range(batch)])
        decode(context, buffer)
        llama.llama_get_logits_ith(context, batch - 1)  # waits for the pass
    wall, processor = time.perf_counter() - begin, time.process_time() - begin_processor
    llama.llama_batch_free(buffer.batch)
    llama.llama_free(context)
    return {"tokens_per_second": batch * tokens / wall, "tokens_per_processor_second": batch * tokens / processor}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(options.file.encode(), llama.llama_model_default_params())
    if not model:
        sys.exit(f"error: llama.cpp does not read {options.file}")
    for line in sys.stdin:
        batch, tokens = map(int, line.split())
        print(json.dumps(measure(model, batch, tokens, options.threads)), flush=True)


main()
