"""Runs MeZO in PyTorch and `trainer` in turn and prints them side by side (see scripts/bench_mezo)."""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

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
estimator = "spsa"
[optimizer]
name = "sgd"
momentum = 0
lr = 1e-7
schedule = "constant"
[adapter]
method = "{adapter}"
rank = 8
[spsa]
probes = 1
[checkpoint]
every = 0
[run]
threads = {threads}
dir = "run"
"""
WARM_UP = 2
PEER = Path(__file__).with_name("mezo_torch.py")


def run_peer(options, trains, rows, length):
    command = [sys.executable, PEER, options.model, "--trains", trains, "--rows", rows, "--length", length,
               "--threads", options.threads, "--steps", options.steps]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    line = json.loads(done.stdout.splitlines()[-1])
    return line["seconds"], line["peak_bytes"], line["runtime_bytes"], line["trained"]


def run_trainer(options, trains, rows, length):
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "data.jsonl", rows, length)
        recipe = Path(folder) / "recipe.toml"
        recipe.write_text(RECIPE.format(model=Path(options.model).resolve(), rows=rows, length=length,
                                        steps=options.steps + WARM_UP, threads=options.threads,
                                        adapter="none" if trains == "full" else trains))
        subprocess.run([options.trainer, recipe.name], cwd=folder, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        lines = [json.loads(text) for text in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line.get("split") == "train"]
    scored = steps[-1]["scored_tokens"]
    if scored < 0.9 * rows * length:
        sys.exit(f"only {scored} of {rows * length} tokens are scored: the two do not do the same work")
    done = next((line["trained_parameters"] for line in lines if line.get("event") == "done"), 0)
    return [line["step_seconds"] for line in steps[WARM_UP:]], steps[-1]["peak_rss_bytes"], done


def write_rows(file, rows, length):
    """Documents of words that fill every row: longer than a row, so that they are cut."""
    letters = random.Random(1)
    words = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=5)) for _ in range(500)]
    with file.open("w") as out:
        for _ in range(4 * rows):
            out.write(json.dumps({"text": " ".join(letters.choices(words, k=2 * length))}) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--trainer", required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=7, help="timed steps of a run, after two to warm up")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each, in turn")
    parser.add_argument("--shapes", default="8x64,16x128")
    parser.add_argument("--trains", default="full,lora")
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    print("trained       batch    MeZO steps/s  Tessera steps/s  ratio   MeZO peak  of it runtime  Tessera peak  ratio")
    for trains in options.trains.split(","):
        for shape in options.shapes.split(","):
            rows, length = (int(part) for part in shape.split("x"))
            peer, ours = [], []
            for _ in range(options.rounds):
                seconds, peer_bytes, runtime, peer_trained = run_peer(options, trains, rows, length)
                peer += seconds
                seconds, our_bytes, trained = run_trainer(options, trains, rows, length)
                ours += seconds
            if trained != peer_trained:
                print(f"  trained: {peer_trained} in PyTorch, {trained} here")
            slow, fast = statistics.median(peer), statistics.median(ours)
            mega = 1e-6
            print(f"{trains:5} {trained:10} {shape:>7} {1 / slow:12.3f} {1 / fast:16.3f} {slow / fast:7.2f}x"
                  f" {peer_bytes * mega:8.0f} MB {runtime * mega:10.0f} MB {our_bytes * mega:9.0f} MB"
                  f" {our_bytes / peer_bytes:7.2f}x", flush=True)


main()
