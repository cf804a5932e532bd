"""Runs MeZO in PyTorch and `trainer` in turn and prints them side by side (see scripts/bench_mezo)."""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from trainer_steps import SPSA, Steps, timed_steps

PEER = Path(__file__).with_name("mezo_torch.py")


def run_peer(options, trains, rows, length, environment=None):
    """(Steps, bytes of its peak that are the runtime's)"""
    command = [sys.executable, PEER, options.model, "--trains", trains, "--rows", rows, "--length", length,
               "--threads", options.threads, "--steps", options.steps]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, **(environment or {})})
    line = json.loads(done.stdout.splitlines()[-1])
    return Steps(line["seconds"], line["processor_seconds"], line["peak_bytes"], line["trained"]), line["runtime_bytes"]


def run_trainer(options, trains, rows, length, **how):
    return timed_steps(options.trainer, options.model, SPSA, trains, rows, length, options.steps, options.threads, **how)


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
                theirs, runtime = run_peer(options, trains, rows, length)
                peer += theirs.seconds
                done = run_trainer(options, trains, rows, length, processor=False)
                ours += done.seconds
            if done.trained != theirs.trained:
                print(f"  trained: {theirs.trained} in PyTorch, {done.trained} here")
            slow, fast = statistics.median(peer), statistics.median(ours)
            mega = 1e-6
            print(f"{trains:5} {done.trained:10} {shape:>7} {1 / slow:12.3f} {1 / fast:16.3f} {slow / fast:7.2f}x"
                  f" {theirs.peak_bytes * mega:8.0f} MB {runtime * mega:10.0f} MB {done.peak_bytes * mega:9.0f} MB"
                  f" {done.peak_bytes / theirs.peak_bytes:7.2f}x", flush=True)


if __name__ == "__main__":
    main()
