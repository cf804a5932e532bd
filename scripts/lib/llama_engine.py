"""Batches of llama.cpp (its fork ik_llama.cpp) whose sequences share a prefix in one cache. See scripts/bench.

A line of the input is "batch shared own new whole": so many sequences behind a common prefix of `shared` tokens, with `own` tokens of
their own each and `new` new ones. With `whole` 0 the time of the new tokens is told, or where there are none that of the prompt; with
1 that of everything. No token is chosen: the logits of each pass are formed, and tokens are drawn before. A prefix stays in the
cache from one line to the next that has it, where its time is not asked for.
"""

import argparse
import json
import random
import sys
import time
from dataclasses import dataclass

from llama_passes import Context, load

PREFIX = 0  # the sequence that holds it; those behind it count from 1


@dataclass(frozen=True)
class Case:
    batch: int
    shared: int
    own: int
    new: int
    whole: bool

    def sequences(self):
        return range(PREFIX + 1, PREFIX + 1 + self.batch) if self.shared else range(self.batch)

    def cells(self):
        return self.shared + self.batch * (self.own + self.new) + 64


class Batches:
    def __init__(self, model, threads):
        self.model, self.threads, self.case, self.context = model, threads, None, None

    def measure(self, case):
        self.prepare(case)
        if not case.whole and case.new:
            self.read_own(case)
        begin, begin_processor = time.perf_counter(), time.process_time()
        if case.whole or not case.new:
            self.read_own(case)
        self.continue_all(case)
        wall, processor = time.perf_counter() - begin, time.process_time() - begin_processor
        self.forget_own(case)
        return {"seconds": wall, "processor_seconds": processor}

    def prepare(self, case):
        """A context for the case, with its prefix."""
        if case == self.case:
            return
        if self.context:
            self.context.close()
        self.case = case
        sequences = len(case.sequences()) + (case.shared > 0)
        self.context = Context(self.model, case.cells(), sequences, self.threads)
        self.context.read(drawn(0, case.shared, PREFIX, 0))
        for s in case.sequences() if case.shared else ():
            self.context.share(PREFIX, s, case.shared)
        self.read_own(case)  # to warm up
        self.forget_own(case)

    def read_own(self, case):
        self.context.read([row for s in case.sequences() for row in drawn(s + 1, case.own, s, case.shared)])
        self.context.logits(-1)

    def continue_all(self, case):
        draw = random.Random(7)
        for position in range(case.shared + case.own, case.shared + case.own + case.new):
            self.context.decode([(draw.randrange(40000), position, s, True) for s in case.sequences()])
            self.context.logits(case.batch - 1)

    def forget_own(self, case):
        for s in case.sequences():
            self.context.forget(s, case.shared)


def drawn(seed, tokens, sequence, position):
    """Rows of a prompt or a part of it. Logits of its last one are formed."""
    draw = random.Random(seed)
    return [(draw.randrange(40000), position + t, sequence, t == tokens - 1) for t in range(tokens)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    batches = Batches(load(options.file), options.threads)
    for line in sys.stdin:
        *sizes, whole = map(int, line.split())
        print(json.dumps(batches.measure(Case(*sizes, bool(whole)))), flush=True)


main()
