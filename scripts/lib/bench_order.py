"""Rows of scripts/bench: what one order for every sum costs (tests/bench/free_order_bench.cpp)."""

import json
import subprocess

from bench_peers import NAMES
from bench_table import Series

# ours / theirs has to be at least this: an order may cost 3 %, one row of 16-bit weights where they lie 10 %.
BAR, BAR_OF_ONE_ROW = 1 / 1.03, 1 / 1.10


def one_order(options, table):
    for target in options.few_targets:
        if not options.wants("one order", NAMES[target]):
            continue
        table.section(f"The cost of one order, {NAMES[target]}", "kernel", "Each kernel in turn with the fastest form that may "
                      "add in any order, in one process. Rates of the kernel's own unit.")
        series = {}
        for _ in range(1 if options.quick else max(3, options.rounds // 3)):
            seconds = "0.1" if options.quick else "0.4"
            done = subprocess.run([options.build / "tests/free_order_bench", str(options.threads), target, seconds], check=True,
                                  capture_output=True, text=True)
            for line in map(json.loads, done.stdout.splitlines()):
                name = line["case"], line["free_form"], line["unit"]
                ours, free = series.setdefault(name, (Series("one order"), Series(f"free: {line['free_form']}")))
                ours.add(line["rate"], line["processor_rate"])
                free.add(line["free_rate"], line["free_processor_rate"])
        for (name, _, unit), (ours, free) in series.items():
            table.row(name, unit, ours, free, BAR_OF_ONE_ROW if is_narrow_row(name) else BAR)


def is_narrow_row(name):
    return " M=1 " in name and name.endswith(("b=bf16", "b=f16"))
