"""Steps of `trainer`, timed, on rows that are full: for comparisons with peers (scripts/bench, scripts/bench_mezo)."""

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

WARM_UP = 2
RECIPE = """
[model]
path = "{model}"
[data]
train = "data.jsonl"
[train]
steps = {steps}
batch = {rows}
micro_batch = {rows}
sequence_length = {length}
{train}
[adapter]
method = "{adapter}"
rank = 8
[checkpoint]
every = 0
[run]
threads = {threads}
target = "{target}"
dir = "run"
{sections}
"""
BACKPROP = {"train": "", "sections": '[optimizer]\nname = "adamw"\nlr = 1e-5\nschedule = "constant"\n'}
SPSA = {"train": 'estimator = "spsa"', "sections": '[optimizer]\nname = "sgd"\nmomentum = 0\nlr = 1e-7\nschedule = "constant"\n'
                                                   '[spsa]\nprobes = 1\n'}


@dataclass
class Steps:
    seconds: list  # of each timed step
    processor_seconds: float  # of one, all threads
    peak_bytes: int  # of the program
    trained: int  # numbers


def timed_steps(trainer, model, kind, adapter, rows, length, steps, threads, target="auto", processor=True):
    """`steps` steps behind WARM_UP others. Processor time is what a run takes beyond one of the first WARM_UP steps alone.

    @param kind  BACKPROP or SPSA;  @param adapter  "lora", "mos" or "full"
    """
    done = {}
    for count in ([WARM_UP] if processor else []) + [WARM_UP + steps]:
        recipe = RECIPE.format(model=Path(model).resolve(), rows=rows, length=length, steps=count, threads=threads, target=target,
                               adapter="none" if adapter == "full" else adapter, **kind)
        done[count] = run(trainer, recipe, rows, length)
    lines, used = done[WARM_UP + steps]
    trained_on = [line for line in lines if line.get("split") == "train"]
    scored = statistics.mean(line["scored_tokens"] for line in trained_on[WARM_UP:])
    if scored < 0.95 * rows * length:
        sys.exit(f"only {scored:.0f} of {rows * length} tokens are scored: the two do not do the same work")
    trained = next((line["trained_parameters"] for line in lines if line.get("event") == "done"), 0)
    return Steps([line["step_seconds"] for line in trained_on[WARM_UP:]],
                 (used - done[WARM_UP][1]) / steps if processor else 0, trained_on[-1]["peak_rss_bytes"], trained)


def run(trainer, recipe, rows, length):
    """Lines of metrics.jsonl, and seconds of processor time of the whole run."""
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "data.jsonl", rows, length)
        (Path(folder) / "recipe.toml").write_text(recipe)
        before = children_seconds()
        done = subprocess.run([Path(trainer).resolve(), "recipe.toml"], cwd=folder, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"error: trainer ended with exit code {done.returncode}:\n{done.stderr}")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], children_seconds() - before


def children_seconds():
    """Of children that have ended: servers that still run are not counted."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_rows(file, rows, length):
    """A document of words that is cut into rows: of many, one is not full."""
    letters = random.Random(1)
    words = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(500)]
    with file.open("w") as out:
        out.write(json.dumps({"text": " ".join(letters.choices(words, k=32 * rows * length))}) + "\n")
