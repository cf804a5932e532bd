"""Runs ten simulated nodes with and without liars and prints their table. Nothing but the standard library."""
import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiment_runs import run_once, spell, spread, table

ROOT, OUT = Path(sys.argv[1]), Path(sys.argv[2])
SEEDS = [int(seed) for seed in os.environ.get("SEEDS", "1 2 3").split()]
ROUNDS = int(os.environ.get("ROUNDS", "400"))
TRAINER = Path(os.environ.get("TRAINER", ROOT / "build/release/trainer"))
NODES, SEQUENCES = 10, 2048
HELD_OUT = OUT / "either_sort_eval.jsonl"  # begins with the repository's 128

WAYS = {
    "shared directions, median": ["spsa.directions=shared", "spsa.aggregate=median"],
    "shared directions, sum": ["spsa.directions=shared"],
    "independent directions, sum": ["spsa.directions=independent"],
}
LIARS = {"no liars": 0, "2 of 10 lie": 0.2}


def right(way, liars, seed):
    """Share of the held-out sequences that the run's last weights get right, by a replay of its log."""
    folder = OUT / f"{way}-{liars}-{seed}".replace(", ", "-").replace(" ", "-")
    run, weights = folder / "run", folder / "weights"
    method = WAYS[way] + ["spsa.probes=8", "optimizer.lr=8e-3", f"train.seed={seed}", "run.threads=1",
                          f"data.cache={OUT / 'cache'}"]
    recipe = [TRAINER, ROOT / "recipes/one_byte_loose.toml"]
    simulate = [TRAINER, "simulate", recipe[1], *method, f"--nodes={NODES}", f"simulate.rounds={ROUNDS}", "simulate.churn=0",
                "simulate.loss=0", f"simulate.hostile={LIARS[liars]}", f"simulate.seed={seed}", f"run.dir={run}"]
    replay = [*recipe, "job=replay", *method, f"replay.log={run}", f"run.dir={weights}"]
    evaluate = [*recipe, "job=evaluate", *method, f"data.eval={HELD_OUT}", f"run.dir={weights}"]
    run_once(folder, [simulate, replay, evaluate])
    digest = json.loads((folder / "run/simulate.json").read_text())["digest"]
    if json.loads((folder / "stdout-1.txt").read_text())["digest"] != digest:
        sys.exit(f"{folder}: the replay has other weights than the simulation")
    return 100 * json.loads((folder / "stdout-2.txt").read_text())["exact_match"]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, ROOT / "scripts/make_world", "--either-sort", HELD_OUT, "--documents", str(SEQUENCES)],
                   check=True)
    grid = [(way, liars, seed) for way in WAYS for liars in LIARS for seed in SEEDS]
    with ThreadPoolExecutor(int(os.environ.get("JOBS", "1"))) as pool:
        found = dict(zip(grid, pool.map(lambda run: right(*run), grid)))
    rows = []
    for way in WAYS:
        honest, hostile = ([found[way, liars, seed] for seed in SEEDS] for liars in LIARS)
        lost = statistics.mean(honest) - statistics.mean(hostile)
        rows.append([way, spread(honest, len(SEEDS), "%.1f"), spread(hostile, len(SEEDS), "%.1f"), "%.1f" % lost])
    table("Voters that lie", f"{NODES} nodes of 8 probes, {ROUNDS} rounds; {SEQUENCES} held-out sequences, right in percent, seeds {spell(SEEDS)}.",
          ["", *LIARS, "points lost"], rows)


main()
