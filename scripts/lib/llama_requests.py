"""Answers a file of requests with llama.cpp (its fork ik_llama.cpp), greedily, as somebody would write it by hand. See scripts/bench.

Requests with one header are known to belong together. Their common tokens are read once, into one sequence, which others share; so many
requests at a time are continued behind it. With --one-by-one there is one sequence, from which goes what the next request does not
begin with: what a prompt cache does. Prompts are tokenized by `tokenizers`. Prints what it took behind loading.
"""

import argparse
import json
import time

import numpy
from llama_passes import Context, load
from tokenizers import Tokenizer


def common(a, b):
    """Tokens that two prompts begin with alike."""
    length = min(len(a), len(b))
    return next((t for t in range(length) if a[t] != b[t]), length)


def families(requests):
    """Requests in the order of their tokens, cut where a neighbour shares less than half."""
    ordered, groups = sorted(requests, key=lambda request: request["ids"]), []
    for request in ordered:
        if groups and common(groups[-1][-1]["ids"], request["ids"]) * 2 > len(request["ids"]):
            groups[-1].append(request)
        else:
            groups.append([request])
    return groups


def tokens_of_tree(requests):
    ordered = sorted(request["ids"] for request in requests)
    return len(ordered[0]) + sum(len(b) - common(a, b) for a, b in zip(ordered, ordered[1:]))


class Answering:
    def __init__(self, model, vocabulary, cells, sequences, threads):
        self.context, self.vocabulary, self.computed = Context(model, cells, sequences, threads, fused=False), vocabulary, 0

    def best(self, rows):
        """Reads the rows; the most likely token behind each whose logits are wanted."""
        found = []
        for begin in range(0, len(rows), self.context.chunk):
            some = rows[begin:begin + self.context.chunk]
            self.context.decode(some)
            found += [int(numpy.ctypeslib.as_array(self.context.logits(i), (self.vocabulary,)).argmax())
                      for i, row in enumerate(some) if row[3]]
        return found

    def continue_all(self, requests, begins, sequences):
        """Requests whose first tokens are in their sequences, one token after the other for all."""
        rows = []
        for request, begin, s in zip(requests, begins, sequences):
            last = len(request["ids"]) - 1
            rows += [(request["ids"][p], p, s, p == last) for p in range(begin, last + 1)]
        self.computed += len(rows)
        for request in requests:
            request["new"] = []
        while True:
            for request, token in zip(requests, self.best(rows)):
                request["new"].append(token)
            if len(requests[0]["new"]) == requests[0]["max_tokens"]:
                return
            rows = [(request["new"][-1], len(request["ids"]) + len(request["new"]) - 1, s, True)
                    for request, s in zip(requests, sequences)]

    def family(self, requests, most):
        shared = min(common(requests[0]["ids"], requests[-1]["ids"]), min(len(r["ids"]) for r in requests) - 1)
        self.context.clear()
        self.context.read([(token, p, 0, False) for p, token in enumerate(requests[0]["ids"][:shared])])
        self.computed += shared
        for s in range(1, most + 1):
            self.context.share(0, s, shared)
        for begin in range(0, len(requests), most):
            some = requests[begin:begin + most]
            self.continue_all(some, [shared] * len(some), range(1, len(some) + 1))
            for s in range(1, len(some) + 1):
                self.context.forget(s, shared)

    def one_by_one(self, requests):
        """@return seconds and processor seconds of the first one: it reads the tokens that the others have in common with it."""
        held, first = [], None
        begin_all, begin_processor = time.perf_counter(), time.process_time()
        for request in requests:
            begin = min(common(held, request["ids"]), len(request["ids"]) - 1)
            self.context.forget(0, begin)
            self.continue_all([request], [begin], [0])
            held = request["ids"] + request["new"][:-1]
            first = first or (time.perf_counter() - begin_all, time.process_time() - begin_processor)
        return first


def main():
    parser = argparse.ArgumentParser()
    for name in ("model", "tokenizer", "requests", "answers"):
        parser.add_argument(name)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--one-by-one", action="store_true")
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    model, tokenizer = load(options.model), Tokenizer.from_file(options.tokenizer)
    with open(options.requests, encoding="utf-8") as file:
        requests = [json.loads(line) for line in file][:options.limit]
    for request, encoding in zip(requests, tokenizer.encode_batch([request["prompt"] for request in requests])):
        request["ids"] = encoding.ids
    groups = families(requests)
    begin, begin_processor = time.perf_counter(), time.process_time()
    longest, new = max(len(request["ids"]) for request in requests), requests[0]["max_tokens"]
    most = 1 if options.one_by_one else options.sequences
    cells = longest + new + 64 if options.one_by_one else longest + most * (128 + new)
    answering = Answering(model, tokenizer.get_vocab_size(), cells, 1 if options.one_by_one else most + 1, options.threads)
    firsts = []
    if options.one_by_one:
        firsts = [answering.one_by_one(group) for group in groups]
    else:
        for group in groups:
            answering.family(group, most)
    with open(options.answers, "w", encoding="utf-8") as file:
        for request, text in zip(requests, tokenizer.decode_batch([request["new"] for request in requests])):
            file.write(json.dumps({"custom_id": request["custom_id"], "text": text, "token_ids": request["new"]}) + "\n")
    first_seconds, first_processor_seconds = map(sum, zip(*firsts)) if firsts else (0, 0)
    print(json.dumps({"first_seconds": first_seconds, "first_processor_seconds": first_processor_seconds, "seconds": time.perf_counter() - begin, "processor_seconds": time.process_time() - begin_processor,
                      "computed": answering.computed, "trie": tokens_of_tree(requests)}))


main()
