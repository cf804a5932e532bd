"""Ours beside the libraries that others use, in interleaved rounds (see scripts/bench and docs/benchmarks.md)."""

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import bench_decoding
import bench_engine
import bench_order
import bench_products
import bench_training
from bench_peers import targets_of_machine
from bench_table import Table, load

PEERS = {"torch": "torch", "transformers": "transformers", "peft": "peft", "ik_llama_cpp": "ik-llama-cpp-python"}


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some rows, few rounds, within three minutes on an idle machine")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose section, instructions or name hold this text")
    parser.add_argument("--json", metavar="FILE", help="keep every round's numbers, one JSON object a line")
    parser.add_argument("--model", metavar="DIR", help="a Hugging Face folder of SmolLM2-135M; fetched when it is not given")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, help="of products; default 9, --quick 3")
    parser.add_argument("--step-rounds", type=int, help="of training steps and of the engine; default 5, --quick 1")
    parser.add_argument("--targets", help="of run.target, such as avx3,avx2; default: all of this machine")
    for name in ("avx3", "avx2"):
        parser.add_argument(f"--{name}-cores", metavar="NAMES",
                            help="OPENBLAS_CORETYPE of the kernels to compare with, the best of which counts")
    options = parser.parse_args()
    options.root = Path(__file__).resolve().parents[2]
    options.build, options.work = options.root / "build/release", options.root / "build/bench"
    options.trainer = options.build / "trainer"
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.step_rounds = options.step_rounds or (1 if options.quick else 5)
    options.seconds, options.steps = (0.08, 2) if options.quick else (0.25, 5)
    options.targets = options.targets.split(",") if options.targets else targets_of_machine()
    options.few_targets = options.targets[:1] if options.quick else options.targets
    options.cores = {name: value.split(",") for name in ("avx3", "avx2") if (value := getattr(options, f"{name}_cores"))}
    options.wants = lambda *words: options.only.lower() in " ".join(words).lower()
    options.model_in = lambda dtype: folder_in(options, dtype)
    return options


def folder_in(options, dtype):
    """The model with weights stored in float32 or float16, so that ours and theirs hold the same."""
    source = Path(options.model) if options.model else options.work / "smollm2"
    if not options.model and not (source / "config.json").exists():
        subprocess.run([options.root / "scripts/get_smollm2", source, "--dtype", "bf16"], check=True)
    folder = options.work / f"{source.resolve().name}-{dtype}"
    if not (folder / "config.json").exists():
        part = folder.with_suffix(".part")
        program = ("import sys, torch; from transformers import AutoModelForCausalLM as M; "
                   "M.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[3])).save_pretrained(sys.argv[2])")
        subprocess.run([sys.executable, "-c", program, source, part, dtype], check=True, stderr=subprocess.DEVNULL)
        for file in source.glob("tokenizer*"):
            shutil.copy(file, part)
        part.rename(folder)
    return folder


def machine():
    text = Path("/proc/cpuinfo").read_text()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True,
                            cwd=Path(__file__).parent).stdout.strip()
    peers = ", ".join(f"{package} {version(package)}" for module, package in PEERS.items() if importlib.util.find_spec(module))
    return f"{name}, {len(os.sched_getaffinity(0))} processors; commit {commit}; {peers}"


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that peers are ended, too
    options = arguments()
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    options.work.mkdir(parents=True, exist_ok=True)
    print(f"# Ours beside peers\n\n{machine()}; {options.threads} threads; load {load():.1f} at the start.\n\n"
          "Medians of the rounds, in which all take turns, ± half of the distance between their quartiles. ours / theirs is the "
          "median\nof the rounds' own ratios: above 1, ours is faster. By processor time: work for each second of it, of all "
          "threads.")
    if load() > 0.5:
        print("\n**The machine is not idle: wall times say little, and figures of this run do not count.**")
    table = Table(options.json)
    failed = False
    for section in (bench_products.products, bench_products.few_rows, bench_training.steps, bench_training.mezo,
                    bench_decoding.decoding, bench_engine.engine, bench_order.one_order):
        try:  # what cannot be measured here keeps nothing else from being measured
            section(options, table)
        except (Exception, SystemExit) as error:  # noqa: BLE001
            failed = True
            table.note(f"**not measured further: {error}**")
    table.end()
    return failed


if __name__ == "__main__":
    sys.exit(main())
