"""Runs the grid behind docs/one_byte.md with `trainer` and prints its tables. Nothing but the standard library."""
import json
import os
import statistics
import subprocess
import sys

ROOT, OUT = sys.argv[1], sys.argv[2]
SIZE = sys.argv[3] if len(sys.argv) > 3 else "page"
SEEDS = [int(s) for s in os.environ.get("SEEDS", "1" if SIZE == "quick" else "1 2 3").split()]
STEPS = int(os.environ.get("STEPS", "100" if SIZE == "quick" else "400"))
TRAINER = os.environ.get("TRAINER", os.path.join(ROOT, "build/release/trainer"))
RECIPE = os.path.join(ROOT, "recipes/one_byte_mpi.toml")

LORA = ["adapter.method=lora", "adapter.rank=8", 'adapter.targets=["q_proj","v_proj"]']
WIDE_LORA = ["adapter.method=lora", "adapter.rank=4", 'adapter.targets=["all"]']
MOS = ["adapter.method=mos", "adapter.equivalent_rank=2", "adapter.rank=8", 'adapter.targets=["all"]']
FULL = ["adapter.method=none", "spsa.eps=1e-3"]
BACKPROP = ["train.estimator=backprop", "optimizer.name=adamw", "train.batch=16", "train.steps=200"]


def learning_rates(lr):
    return ["optimizer.lr=%g" % lr]


def run(name, options, seed):
    """One run, or the finished one of that name; its metrics."""
    folder = os.path.join(OUT, "%s-%d" % (name, seed))
    metrics = os.path.join(folder, "metrics.jsonl")
    if not (os.path.exists(metrics) and '"event"' in open(metrics).read()):
        command = [TRAINER, RECIPE, "run.dir=" + folder, "data.cache=" + os.path.join(OUT, "cache"), "train.seed=%d" % seed,
                   "checkpoint.every=0", "log.progress=none", "evaluate.every=0", "run.threads=1"] + options
        environment = dict(os.environ, GOMP_SPINCOUNT="2000")
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    lines = [json.loads(line) for line in open(metrics)]
    log = os.path.join(folder, "log")
    log_bytes = sum(os.path.getsize(os.path.join(log, f)) for f in os.listdir(log) if f.endswith(".tsb")) if os.path.isdir(log) else 0
    steps = [line for line in lines if line.get("split") == "train"]
    return {"done": lines[-1], "seconds": lines[-1]["seconds"], "log": log_bytes,
            "votes": sum(s.get("votes", 0) for s in steps),
            "comm": sum(s["comm_bytes"] for s in steps)}


def mean(values):
    text = "%.1f" % statistics.mean(values)
    return text + (" ± %.1f" % statistics.stdev(values) if len(values) > 1 else "")


def table(title, rows, key="eval_exact_match"):
    print("\n### %s\n" % title)
    print("| | right, %% | held-out loss | probes | bytes of votes | bytes of log | seconds |\n|---|---|---|---|---|---|---|".replace("%%", "%"))
    for name, options in rows:
        runs = [run(name, options, seed) for seed in SEEDS]
        votes = runs[0]["votes"]
        width = 4 if any("float32" in o for o in options) else 1
        print("| %s | %s | %s | %s | %s | %s | %d |" % (
            name.replace("_", " "), mean([100 * r["done"][key] for r in runs]),
            "%.3f" % statistics.mean(r["done"]["eval_loss"] for r in runs), votes or "–", votes * width or "–",
            runs[0]["log"] or "–", round(statistics.mean(r["seconds"] for r in runs))), flush=True)


def spsa(pool, lr, steps=STEPS, probes=8, *more):
    return pool + learning_rates(lr) + ["train.steps=%d" % steps, "spsa.probes=%d" % probes, *more]


def embedded():
    table("What a vote says (LoRA on q and v, 8 votes a round)", [
        ("backprop,_AdamW", BACKPROP + LORA + learning_rates(2e-3)),
        ("backprop,_SGD", BACKPROP + LORA + ["optimizer.name=sgd"] + learning_rates(0.3)),
        ("float32", spsa(LORA, 8e-3, STEPS, 8, "spsa.votes=float32")),
        ("one_byte", spsa(LORA, 8e-3)),
        ("sign", spsa(LORA, 1.2e-2, STEPS, 8, "spsa.votes=sign")),
    ])
    table("What is trained (one byte, 8 votes a round)", [
        ("full", spsa(FULL, 6e-4)),
        ("LoRA_on_all", spsa(WIDE_LORA, 2e-3)),
        ("one_byte", spsa(LORA, 8e-3)),
        ("MoS_on_all", spsa(MOS, 6e-3)),
        ("backprop_full,_AdamW", BACKPROP + FULL[:1] + learning_rates(4e-3)),
        ("backprop_MoS,_AdamW", BACKPROP + MOS + learning_rates(5e-3)),
    ])
    table("Voters, at equal total probes", [
        ("1_voter", spsa(LORA, 1.5e-3, 8 * STEPS, 1)),
        ("4_voters", spsa(LORA, 5e-3, 2 * STEPS, 4)),
        ("16_voters", spsa(LORA, 1.2e-2, STEPS // 2, 16)),
    ])
    table("Voters, at equal rounds", [
        ("1_voter_of_few", spsa(LORA, 1.5e-3, STEPS, 1)),
        ("4_voters_of_few", spsa(LORA, 5e-3, STEPS, 4)),
        ("16_voters_of_few", spsa(LORA, 1.2e-2, STEPS, 16)),
    ])


def sst2():
    data = os.environ["TESSERA_SST2"]
    shared = ["model.path=" + os.environ.get("TESSERA_SMOLLM2", os.path.join(ROOT, "models/smollm2")),
              "data.train=" + os.path.join(data, "sst2_train.jsonl"), "data.eval=" + os.path.join(data, "sst2_dev.jsonl"),
              "data.prompt_template=Review: {sentence}\\nSentiment:", "data.label_field=label",
              'data.label_words=[" negative", " positive"]', "train.sequence_length=160", "adapter.method=lora", "adapter.rank=8",
              'adapter.targets=["q_proj","v_proj"]']
    steps = int(os.environ.get("STEPS", "300"))
    probes = ["train.objective=choices", "train.batch=4", "spsa.probes=1", "train.steps=%d" % steps]
    table("SST-2, SmolLM2-135M, LoRA", [
        ("sst2_backprop", shared + ["train.estimator=backprop", "optimizer.name=adamw", "optimizer.lr=2e-4", "train.batch=4",
                                    "train.steps=%d" % (steps // 3)]),
        ("sst2_one_byte", shared + probes + learning_rates(4e-3)),
        ("sst2_float32", shared + probes + ["spsa.votes=float32"] + learning_rates(4e-3)),
        ("sst2_sign", shared + probes + ["spsa.votes=sign"] + learning_rates(4e-3)),
    ], key="eval_accuracy")


os.makedirs(OUT, exist_ok=True)
sst2() if SIZE == "sst2" else embedded()
