"""Rows of scripts/bench: training steps beside PyTorch and PEFT, and MeZO."""

import argparse
import json
import statistics
import subprocess
import sys

import bench_mezo
from bench_peers import LIB, NAMES, Server, torch_variants
from bench_products import Contenders, cases
from bench_table import Series
from trainer_steps import BACKPROP, Steps, timed_steps

LENGTH = 512
# What is trained: what PyTorch trains beside it, how many times as fast ours has to be, which share of the limit it has to
# reach, and which part of PyTorch's memory it may take.
METHODS = {"lora": ("lora", 1.6, 0.85, None), "mos": ("lora", 1.6, 0.85, None), "full": ("full", 1.5, 0.75, 0.7)}
MEZO_SHAPES = ((8, 64), (1, 512), (16, 32))
MEZO_BAR = 1.5


def flop_per_token(options):
    done = subprocess.run([options.build / "tests/finetune_bench", "--flop", str(LENGTH)], check=True, capture_output=True,
                          text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["method"]: line["flop_per_token"] for line in lines}


def add_steps(series, steps):
    series.add(LENGTH / statistics.median(steps.seconds), LENGTH / steps.processor_seconds)


class Method:
    """One method of ours, its peers, and the best product of any library, measured in turn."""

    def __init__(self, options, model, target, name):
        self.options, self.model, self.target, self.name = options, model, target, name
        self.square = next(case for case in cases(options)[0] if case["name"] == "square")
        self.products = Contenders(options, target)
        self.peers = [(v, Server([sys.executable, LIB / "torch_steps.py", model, "--trains", METHODS[name][0], "--rows", 1,
                                  "--length", LENGTH, "--threads", options.threads], v.environment))
                      for v in torch_variants(target, options.work)]
        for _, server in self.peers:
            server.ask("1")  # what it loads would take the time of whoever is measured first
        self.ours, self.theirs = Series("ours"), {v.name: Series(v.name) for v, _ in self.peers}
        self.limit, self.processor_limit, self.our_bytes, self.their_bytes = 0, 0, [], []

    def measure_limit(self):
        wall, processor = self.products.best_square(self.square, self.options.seconds)
        self.limit, self.processor_limit = max(self.limit, wall), max(self.processor_limit, processor)

    def round(self):
        options = self.options
        self.measure_limit()
        steps = timed_steps(options.trainer, self.model, BACKPROP, self.name, 1, LENGTH, options.steps, options.threads,
                            self.target)
        add_steps(self.ours, steps)
        self.our_bytes.append(steps.peak_bytes)
        for variant, server in self.peers:
            theirs = Steps(**server.ask(str(options.steps)))
            add_steps(self.theirs[variant.name], theirs)
            self.their_bytes.append(theirs.peak_bytes)
        self.measure_limit()
        return steps.trained, theirs.trained

    def close(self):
        self.products.close()
        for _, server in self.peers:
            server.close()


def report(table, method, flop, trained):
    _, bar, share_bar, memory_bar = METHODS[method.name]
    name = {"full": "all weights", "lora": "LoRA r=8", "mos": "MoS e=2 r=8 (PEFT: LoRA r=8)"}[method.name]
    ours, theirs = max(method.our_bytes), min(method.their_bytes)
    for series in method.theirs.values():
        table.row(f"{name}, 1 x {LENGTH}", "tokens/s", method.ours, series, bar,
                  {"trained": trained, "peak_bytes": [ours, theirs], "limit_gflops": method.limit})
    share = method.ours.median() * flop * 1e-9 / method.limit
    by_processor = statistics.median(method.ours.processor_rates) * flop * 1e-9 / method.processor_limit
    table.hold(f"{name}: share of the best product of any library, {method.limit:.0f} GFLOP/s (by processor time "
               f"{by_processor:.3f})", share, share_bar)
    table.hold(f"{name}: peak memory, {ours * 1e-6:.0f} MB of PyTorch's {theirs * 1e-6:.0f}", ours / theirs, memory_bar,
               at_most=True)
    if trained[0] != trained[1]:
        table.note(f"{name}: {trained[0]} numbers are trained, {trained[1]} in PyTorch")


def steps(options, table):
    flop = flop_per_token(options)
    for target in options.few_targets:
        names = [name for name in METHODS if options.wants("training", NAMES[target], name)]
        if options.quick:
            names = [name for name in names if name != "mos"]
        if names:
            table.section(f"Training steps, {NAMES[target]}", "method", "f32, AdamW, one row of 512 tokens, all scored.")
        for name in names:
            method = Method(options, options.model_in("float32"), target, name)
            for _ in range(options.step_rounds):
                trained = method.round()
            report(table, method, flop[name], trained)
            method.close()


def mezo(options, table):
    for target in options.targets[:1]:
        shapes = [shape for shape in MEZO_SHAPES if options.wants("mezo", NAMES[target], "{}x{}".format(*shape))]
        if not shapes:
            continue
        table.section(f"Steps of MeZO with LoRA r=8, {NAMES[target]}", "batch", "One probe: two forward passes and an update.")
        for rows, length in shapes[:1] if options.quick else shapes:
            run_mezo(options, table, target, rows, length)


def run_mezo(options, table, target, rows, length):
    variants = torch_variants(target, options.work)
    options = argparse.Namespace(**{**vars(options), "model": options.model_in("float32")})
    ours, theirs = Series("ours"), {v.name: Series(v.name) for v in variants}
    for _ in range(max(1, options.step_rounds // 2)):
        done = bench_mezo.run_trainer(options, "lora", rows, length, target=target)
        ours.add(1 / statistics.median(done.seconds), 1 / done.processor_seconds)
        for v in variants:
            peer, _ = bench_mezo.run_peer(options, "lora", rows, length, v.environment)
            theirs[v.name].add(1 / statistics.median(peer.seconds), 1 / peer.processor_seconds)
    for series in theirs.values():
        table.row(f"{rows} x {length}", "steps/s", ours, series, MEZO_BAR,
                  {"peak_bytes": [done.peak_bytes, peer.peak_bytes]})
