"""Runs every recipe and method with two versions of the program for a few steps and compares what they wrote.

A case is a name and a list of commands, run one after another in one folder. `facts` turns a folder into lines "what: hash".
"""

import argparse
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import h5py
import numpy

TIMES = {"seconds", "step_seconds", "tokens_per_second", "machine_share", "peak_rss_bytes", "time", "seconds_total"}
SHORT = ["train.steps=6", "evaluate.every=3", "checkpoint.every=3", "evaluate.rows=16", "log.every=2"]
SMALL = ["train.batch=4", "train.sequence_length=96"]


class Command:
    """One start of the program."""

    def __init__(self, recipe, *overrides, ranks=1):
        self.recipe, self.overrides, self.ranks = recipe, list(overrides), ranks

    def run(self, program, folder, device=None, overrides=()):
        words = [str(program / "build/release/trainer"), str(program / "recipes" / self.recipe), *self.overrides]
        if device and "run.backend=reference" not in self.overrides:  # which runs on the CPU alone
            words.append(f"run.device={device}")
        words += overrides
        if self.ranks > 1:
            words = ["mpirun", "--oversubscribe", "--allow-run-as-root", "-n", str(self.ranks), *words]
        environment = dict(os.environ, GOMP_SPINCOUNT="2000", OMPI_MCA_hwloc_base_binding_policy="none")
        done = subprocess.run(words, cwd=folder, env=environment, text=True, capture_output=True)
        if done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}: {' '.join(words)}\n{done.stderr}")


def train(recipe, *overrides, ranks=1, steps=6):
    short = [o if not o.startswith("train.steps=") else f"train.steps={steps}" for o in SHORT]
    return Command(recipe, "run.dir=run", *short, *overrides, ranks=ranks)


def cases():
    """name -> commands. Every recipe is here, every method, estimator, optimizer and job at least once."""
    lora, mos, full, rps, spsa = (f"{n}.toml" for n in ("lora", "mos_lora", "full_finetune", "stable_rps", "one_byte_mpi"))
    generate = ["job=generate", 'generate.prompts=["the", "who is"]', "generate.max_new_tokens=12", "generate.output=text.jsonl"]
    tiny = ["train.batch=2", "train.sequence_length=64", "evaluate.rows=4", "evaluate.every=2", "run.threads=1"]
    found = {
        "few steps, lora": [train(lora, *tiny, steps=2)],
        "few steps, spsa": [train(spsa, *tiny, "spsa.probes=2", steps=2), Command(spsa, "run.dir=run", "job=replay")],
        "lora": [train(lora, "export.merged=true", "checkpoint.best=true"),
                 Command(lora, "run.dir=run", "job=evaluate", "evaluate.rows=16"), Command(lora, "run.dir=run", *generate)],
        "lora dropout, ranks": [train(lora, *SMALL, "adapter.dropout=0.1", "adapter.scale=rs", ranks=2)],
        "lora going on": [train(lora, *SMALL, "optimizer.schedule=constant", steps=3), train(lora, *SMALL, "optimizer.schedule=constant")],
        "lora sampling": [train(lora, *SMALL, steps=2), Command(lora, "run.dir=run", *generate, "generate.temperature=0.8",
                                                                "generate.top_k=20", "generate.top_p=0.9", "generate.seed=3")],
        "lora micro batch": [train(lora, "train.batch=8", "train.micro_batch=2")],
        "lora f32, clip": [train(lora, *SMALL, "model.dtype=f32", "train.clip=0.1")],
        "lora sgd": [train(lora, *SMALL, "optimizer.name=sgd", "optimizer.momentum=0.9")],
        "lora reference": [train(lora, "train.batch=2", "train.sequence_length=64", "run.backend=reference", steps=2)],
        "mos": [train(mos, "export.merged=true"), Command(mos, "run.dir=run", *generate)],
        "mos ranks": [train(mos, *SMALL, "adapter.dropout=0.1", ranks=3)],
        "mos recompute": [train(mos, *SMALL, "train.checkpoint_activations=true")],
        "full": [train(full), Command(full, "run.dir=run", "job=evaluate", "evaluate.rows=16"), Command(full, "run.dir=run", *generate)],
        "full ranks, frozen": [train(full, *SMALL, 'train.freeze=["model[.]embed_tokens[.].*"]', ranks=2)],
        "pretrain": [train("pretrain_tiny.toml")],
        "rps": [train(rps), Command(rps, "run.dir=run", *generate)],
        "rps tiles, ranks": [train(rps, *SMALL, "sharing.layout=tile", ranks=2)],
        "rps roast": [train(rps, *SMALL, "sharing.mapper=roast-tile")],
        "rps hashed": [train(rps, *SMALL, "sharing.mapper=hashed")],
        "rps everything": [train(rps, *SMALL, 'sharing.shared=["linears","embedding"]', "sharing.precond=none")],
        "depth": [train(rps, *SMALL, "sharing.method=depth", "sharing.blocks=2")],
        "magnitude": [train(full, *SMALL, "sharing.method=magnitude", "sharing.compression=4")],
        "mos over rps": [train(rps, *SMALL, steps=2),
                         Command(rps, "run.dir=over", *SHORT, *SMALL, "sharing.load=run/sharing", "adapter.method=mos")],
        "spsa": [train(spsa), Command(spsa, "run.dir=run", "job=replay")],
        "spsa ranks": [train(spsa, ranks=2), Command(spsa, "run.dir=run", "job=replay")],
        "spsa full adamw": [train(spsa, "adapter.method=none", "optimizer.name=adamw", "spsa.probes=4")],
        "spsa momentum, pool, Hadamard": [train(spsa, "optimizer.momentum=0.9", "spsa.directions=hadamard", "spsa.probes=4")],
        "spsa signs, one side": [train(spsa, "spsa.votes=sign", "spsa.sides=one", "spsa.probes=3")],
        "spsa over mos": [train(spsa, "adapter.method=mos", "adapter.rank=8", "adapter.equivalent_rank=2")],
        "spsa over rps": [train(rps, *SMALL, "train.estimator=spsa", "optimizer.name=sgd", "optimizer.lr=1e-3", "train.clip=0")],
        "spsa layers": [train(spsa, "adapter.method=none", "spsa.perturb=layers")],
        "stories": [train("mos_stories.toml", *SMALL), Command("mos_stories.toml", "run.dir=run", *generate)],
        "rps stories": [train("stable_rps_stories.toml", *SMALL)],
        "sst2": [train("one_byte_sst2.toml", "train.batch=1", "checkpoint.every=2", steps=2)],
        "smollm2": [train("mos_smollm2.toml", "train.batch=1", "train.sequence_length=64", "evaluate.rows=2", steps=2)],
    }
    return found


def digest(*parts):
    whole = hashlib.sha256()
    for part in parts:
        whole.update(part if isinstance(part, bytes) else str(part).encode())
    return whole.hexdigest()[:24]


def hdf5_facts(path):
    """Every dataset and attribute but the clock and the recipe, whose paths are this folder's."""
    facts = {}

    def visit(name, item):
        for key, value in item.attrs.items():
            facts[f"{name}@{key}"] = digest(numpy.asarray(value).tobytes() if not isinstance(value, (str, bytes)) else value)
        if isinstance(item, h5py.Dataset) and name not in ("meta/seconds", "meta/recipe"):
            value = item[()]
            facts[name] = digest(value if isinstance(value, bytes) else numpy.asarray(value).tobytes(), item.dtype, item.shape)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return facts


def metrics_facts(path):
    lines = []
    for line in path.read_text().splitlines():
        values = json.loads(line)
        lines.append({key: value for key, value in values.items() if key not in TIMES})
    return {"": digest(json.dumps(lines, sort_keys=True))}


def results_facts(path):
    text = re.sub(r'"[^"]*(seconds|path|_per_second|folder|rss)[^"]*": *[^,}\n]+,?', "", path.read_text())
    return {"": digest(text)}


SKIPPED = re.compile(r"(^|/)(report\.html|log\.txt|lock|run\.json|recipe\.toml|latest|events\.out[^/]*|\.cache.*|README\.md)$|\.tsr$")


def facts(folder):
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if not path.is_file() or SKIPPED.search(name) or "/cache/" in f"/{name}":
            continue
        if path.suffix == ".h5":
            values = hdf5_facts(path)
        elif path.name == "metrics.jsonl":
            values = metrics_facts(path)
        elif path.suffix in (".json", ".jsonl"):
            values = results_facts(path)
        else:
            values = {"": digest(path.read_bytes())}
        found.update({f"{name} {key}".strip(): value for key, value in values.items()})
    return found


def run_case(program, commands, device, overrides):
    with tempfile.TemporaryDirectory(prefix="tessera_digests_") as folder:
        for command in commands:
            command.run(program, folder, device, overrides)
        return facts(pathlib.Path(folder))


def is_missing(error):
    return "exit code 2" in str(error) and re.search(r"(models/smollm2|shared/data)[^\n]*(no such|not there|does not exist|cannot)", str(error),
                                                     re.IGNORECASE)


def outcome(program, commands, keep, device=None, overrides=()):
    """What a case gave: from `keep` where a commit's has been written down there."""
    if keep and keep.exists():
        return json.loads(keep.read_text())
    try:
        result = run_case(program, commands, device, overrides)
    except RuntimeError as error:
        result = {"missing": str(error).splitlines()[1]} if is_missing(error) else {"failed": str(error)}
    if keep and "failed" not in result:
        keep.parent.mkdir(exist_ok=True)
        keep.write_text(json.dumps(result, indent=1))
    return result


def compare(name, before, after):
    """@return  how many values differ"""
    for result in (before, after):
        if "failed" in result:
            print(f"FAILED   {name}: {result['failed']}")
            return 1
    if "missing" in before:
        print(f"left out {name}: {before['missing']}")
        return 0
    keys = sorted(set(before) | set(after))
    other = [key for key in keys if before.get(key) != after.get(key)]
    print(f"{'DIFFERS ' if other else 'same    '} {name}: {len(keys)} values" + "".join(f"\n         {key}" for key in other[:20]), flush=True)
    return len(other)


def kept_file(root, program, name, commands):
    if program == root:
        return None
    return program / "digests" / (digest(name, *(str(vars(c)) for c in commands)) + ".json")


def link_shared(root, program):
    """Recipes name ../../shared, beside the repository."""
    for there, wanted in ((root.parent / "shared", program.parent / "shared"), (root / "models", program / "models")):
        if there.exists() and not wanted.exists():
            wanted.symlink_to(there)


def main():
    parser = argparse.ArgumentParser()
    for name in ("root", "before", "after"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--device")
    parser.add_argument("--alone", action="store_true", help="leave out what runs as several ranks")
    parser.add_argument("--with", nargs="*", default=[], dest="overrides")
    arguments = parser.parse_args()
    programs = [arguments.before, arguments.after]
    for program in programs:
        if program != arguments.root:
            link_shared(arguments.root, program)
    different = 0
    for name, commands in cases().items():
        if arguments.only and not any(text in name for text in arguments.only):
            continue
        if arguments.alone and any(command.ranks > 1 for command in commands):
            continue
        before = outcome(arguments.before, commands, kept_file(arguments.root, arguments.before, name, commands))
        changed = arguments.device or arguments.overrides
        keep = None if changed else kept_file(arguments.root, arguments.after, name, commands)
        results = [before, outcome(arguments.after, commands, keep, arguments.device, arguments.overrides)]
        different += compare(name, *results)
    print(f"{different} values differ")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
