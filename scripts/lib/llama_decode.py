"""Passes of llama.cpp (its fork ik_llama.cpp) that continue sequences by a token each. See scripts/bench.

A line of the input is "batch tokens", as of generate_bench --serve. No token is chosen: the logits of each pass are formed, and
the tokens that come next are drawn before.
"""

import argparse
import json
import random
import sys
import time

from llama_passes import CHUNK, Context, load

PROMPT = 32


def measure(model, batch, tokens, threads):
    draw = random.Random(7)
    context = Context(model, batch * (PROMPT + tokens + 8), batch, threads, chunk=max(CHUNK, batch * PROMPT))
    for s in range(batch):
        context.decode([(draw.randrange(40000), p, s, p == PROMPT - 1) for p in range(PROMPT)])
    begin, begin_processor = time.perf_counter(), time.process_time()
    for position in range(PROMPT, PROMPT + tokens):
        context.decode([(draw.randrange(40000), position, s, True) for s in range(batch)])
        context.logits(batch - 1)
    wall, processor = time.perf_counter() - begin, time.process_time() - begin_processor
    context.close()
    return {"tokens_per_second": batch * tokens / wall, "tokens_per_processor_second": batch * tokens / processor}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    model = load(options.file)
    for line in sys.stdin:
        batch, tokens = map(int, line.split())
        print(json.dumps(measure(model, batch, tokens, options.threads)), flush=True)


main()
