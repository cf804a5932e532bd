"""Runs the grids behind docs/stable_rps.md with `trainer` and prints their tables. Nothing but the standard library.

A run is a folder of OUT: the recipe, the metrics, and command.txt; weights are thrown away. A folder whose command is the wanted one and which has ended, or
diverged, is not run again.
"""
import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiment_runs import spell, spread, table
from svg_curve import svg_curve

LEVELS = [1, 2, 4, 8, 16, 32, 100]
ALL_MATRICES = 'sharing.shared=["linears","embedding"]'
SGD_LR = 0.3
PARTS = ["curve", "proof", "sigma", "kappa", "groups"]
VOCABULARY = {"stories": 512, "world": 256}


class Sizes:
    """A Llama with a tied head, and its numbers of parameters."""

    def __init__(self, width, layers, vocabulary):
        self.width, self.layers, self.vocabulary = width, layers, vocabulary
        self.heads = next(h for h in (4, 2, 1) if width % h == 0 and width // h % 2 == 0)
        self.mlp = max(8, round(width / 3) * 8)

    def block(self):
        return 4 * self.width ** 2 + 3 * self.width * self.mlp

    def matrices(self):
        return self.layers * self.block() + self.vocabulary * self.width

    def norms(self):
        return (2 * self.layers + 1) * self.width

    def parameters(self):
        return self.matrices() + self.norms()

    def config(self):
        return {"model_type": "llama", "vocab_size": self.vocabulary, "hidden_size": self.width, "intermediate_size": self.mlp,
                "num_hidden_layers": self.layers, "num_attention_heads": self.heads, "num_key_value_heads": self.heads,
                "head_dim": self.width // self.heads, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                "initializer_range": round(0.9 / math.sqrt(self.width), 4),  # products of normed rows have one deviation at any width
                "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}


def dense_of(numbers, full):
    """The model of fewer columns, a multiple of 4, whose parameters are nearest to that number."""
    widths = [Sizes(width, full.layers, full.vocabulary) for width in range(4, full.width + 1, 4)]
    return min(widths, key=lambda s: abs(s.parameters() - numbers))


class Bench:
    def __init__(self, options):
        self.options, self.out = options, options.out.resolve()
        self.out.mkdir(parents=True, exist_ok=True)
        self.spent = 0.0

    # ---- What a run is made of ----

    def data(self, dataset):
        o = self.options
        if dataset == "stories":
            if not o.stories.exists():
                sys.exit(f"there is no {o.stories}: name the text with --stories, or leave it out with --data world")
            return [o.root / "recipes/stable_rps_stories.toml", f"model.tokenizer={o.stories_tokenizer.resolve()}",
                    f"data.train={o.stories.resolve()}"]
        train = self.out / "world.jsonl"
        if not train.exists():
            subprocess.run([sys.executable, o.root / "scripts/make_world", "--pretrain", self.out / "world.part", "--documents", "40000"],
                           check=True, stdout=subprocess.DEVNULL)
            (self.out / "world.part").rename(train)
        return [o.root / "recipes/stable_rps.toml", f"data.train={train}"]

    def model_path(self, sizes):
        file = self.out / "models" / f"{sizes.width}x{sizes.layers}-{sizes.vocabulary}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(sizes.config(), indent=1) + "\n")
        return file

    def command(self, dataset, sizes, overrides, seed):
        o = self.options
        return [str(part) for part in [
            o.trainer, *self.data(dataset), f"model.path={self.model_path(sizes)}", f"data.cache={self.out / 'cache'}", f"train.steps={o.steps}",
            f"train.batch={o.batch}", f"train.sequence_length={o.length}", f"train.seed={seed}", f"sharing.seed={seed}",
            "sharing.min_numel=0", "evaluate.every=0", "checkpoint.every=0", "log.progress=none", "run.threads=1", *overrides]]

    # ---- Running ----

    def run(self, name, command):
        """The last line of the run's metrics; None when it diverged."""
        folder = self.out / name
        text = "\n".join(command)
        marker, metrics, diverged = folder / "command.txt", folder / "metrics.jsonl", folder / "diverged.txt"
        if not (marker.exists() and marker.read_text() == text):
            shutil.rmtree(folder, ignore_errors=True)
            begin = time.monotonic()
            done = subprocess.run([*command, f"run.dir={folder}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                  env=dict(os.environ, GOMP_SPINCOUNT="2000"))
            if done.returncode != 0:
                if "lower optimizer.lr" not in done.stderr:
                    raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
                diverged.write_text(done.stderr)
            for part in folder.iterdir():
                if part.is_dir():
                    shutil.rmtree(part)  # weights
            marker.write_text(text)
            self.spent += time.monotonic() - begin
            print(f"  {name}: {time.monotonic() - begin:.1f} s", file=sys.stderr, flush=True)
        if diverged.exists():
            return None
        return json.loads(metrics.read_text().splitlines()[-1])

    def run_all(self, rows, seeds):
        """Sets row.ends, one a seed."""
        jobs = {f"{row.name}-s{seed}": self.command(*row.what(), seed) for row in rows for seed in seeds}  # unlike ones
        with ThreadPoolExecutor(self.options.jobs) as pool:
            ends = dict(zip(jobs, pool.map(self.run, jobs, jobs.values())))
        for row in rows:
            row.ends = [ends[f"{row.name}-s{seed}"] for seed in seeds]

    def measure(self, rows):
        """Runs all rows; those to be swept first find their learning rate with the first seed."""
        kinds = {"none": [], "dense": ["dense"], "all": ["dense", "rps", "depth", "magnitude"]}[self.options.sweep]
        swept = [row for row in rows if row.method in kinds]
        tries = {row: [row.at(row.lr * factor) for factor in self.options.factors] for row in swept}
        self.run_all([one for some in tries.values() for one in some], self.options.seeds[:1])
        for row, some in tries.items():
            row.lr = min(some, key=lambda one: one.ends[0]["eval_loss"] if one.ends[0] else math.inf).lr
        self.run_all(rows, self.options.seeds)


class Row:
    """One line of a table: a model, a method, its settings; a run for each seed."""

    def __init__(self, dataset, sizes, method, lr, label, *overrides):
        self.dataset, self.sizes, self.method, self.lr, self.label, self.overrides = dataset, sizes, method, lr, label, list(overrides)

    def at(self, lr):
        return Row(self.dataset, self.sizes, self.method, lr, self.label, *self.overrides)

    @property
    def name(self):
        """Of its folders: unlike for unlike rows, and alike where two parts ask for the same."""
        settings = "-".join(o.split(".", 1)[1].replace('"', "").replace("[", "").replace("]", "").replace("/", "_") for o in self.overrides)
        parts = [self.dataset, f"{self.sizes.width}x{self.sizes.layers}", self.method, settings, f"lr={self.lr:g}"]
        return "-".join(part for part in parts if part)

    def what(self):
        method = "none" if self.method == "dense" else self.method
        return self.dataset, self.sizes, [f"sharing.method={method}", f"optimizer.lr={self.lr:g}", *self.overrides]

    # ---- Cells ----

    def numbers(self):
        return next((end["trained_parameters"] for end in self.ends if end), None)

    def loss(self):
        return spread([end["eval_loss"] for end in self.ends if end], len(self.ends), "%.3f")

    def right(self):
        return spread([100 * end["eval_token_accuracy"] for end in self.ends if end], len(self.ends), "%.1f")


def rps(compression, *more):
    return [f"sharing.compression={compression:g}", ALL_MATRICES, *more]


# ---- The parts ----


def describe(options, sizes, what=""):
    tokens = options.steps * options.batch * options.length
    return (f"Llama of {sizes.layers} layers, width {sizes.width}, vocabulary {sizes.vocabulary}, tied head: {sizes.parameters():,} parameters; {tokens:,} tokens in steps of "
            f"{options.batch} x {options.length}; seed {spell(options.seeds)}{what}.")


def curve(bench, dataset):
    o, full = bench.options, Sizes(bench.options.width, bench.options.layers, VOCABULARY[dataset])
    groups, depth = [], [Row(dataset, full, "depth", o.lr, f"depth sharing, {b} block{'s' * (b > 1)}", f"sharing.blocks={b}") for b in range(full.layers - 1, 0, -1)]
    for level in o.levels:
        numbers = math.floor(full.matrices() / level) + full.norms()
        small = full if level == 1 else dense_of(numbers, full)
        rows = [Row(dataset, full, "rps", o.lr, "Stable-RPS", *rps(level)), Row(dataset, small, "dense", o.lr, f"dense, width {small.width}")]
        if level > 1:
            rows.append(Row(dataset, full, "magnitude", o.lr, "magnitude pruning", *rps(level)))
        near = [d for d in depth if abs(math.log(depth_numbers(d, full) / numbers)) < math.log(1.25)]
        groups.append((level, rows + near[:1]))
    bench.measure([row for _, rows in groups for row in rows if row not in depth] + depth)
    lines = [(f"{level:g}x", row.label, f"{row.numbers() or 0:,}", f"{row.lr:g}", row.loss(), row.right()) for level, rows in groups for row in rows]
    used = {id(row) for _, rows in groups for row in rows}
    draw(bench, dataset, groups, depth)
    lines += [("", d.label, f"{d.numbers() or 0:,}", f"{d.lr:g}", d.loss(), d.right()) for d in depth if id(d) not in used]
    table(f"Loss against trained numbers: {dataset}", describe(o, full, ". All methods see the same tokens; embedding and linears are shared, norms are not"),
          ["compression", "", "trained numbers", "lr", "held-out loss", "right tokens, %"], lines)


def draw(bench, dataset, groups, depth):
    """curve-DATA.svg in OUT."""
    curves = {"Stable-RPS": [], "smaller dense": [], "depth sharing": [], "magnitude pruning": []}
    names = {"rps": "Stable-RPS", "dense": "smaller dense", "magnitude": "magnitude pruning", "depth": "depth sharing"}
    for row in [row for _, rows in groups for row in rows if row not in depth] + depth:
        losses = [end["eval_loss"] for end in row.ends if end]
        if losses:
            curves[names[row.method]].append((row.numbers(), statistics.mean(losses), statistics.stdev(losses) if len(losses) > 1 else 0))
    curves = {name: sorted(set(curve)) for name, curve in curves.items() if curve}
    file = bench.out / f"curve-{dataset}.svg"
    file.write_text(svg_curve(f"Held-out loss against trained numbers: {dataset}", "trained numbers", "held-out loss, nats a token", curves))
    print(f"\n{file}")


def depth_numbers(row, full):
    blocks = int(row.overrides[0].split("=")[1])
    return full.parameters() - (full.layers - blocks) * full.block()


def proof(bench, dataset):
    """At 10x: with D at one learning rate, against without D at its best sigma_0 of three, and against a dense model of as many numbers at its best rate among --factors."""
    o, full = bench.options, Sizes(bench.options.width, bench.options.layers, VOCABULARY[dataset])
    small = dense_of(math.floor(full.matrices() / 10) + full.norms(), full)
    ours = Row(dataset, full, "rps", o.lr, "Stable-RPS", *rps(10))
    without = [Row(dataset, full, "rps", o.lr, f"without D, sigma_0 {s}", *rps(10, f"sharing.sigma_0={s}", "sharing.precond=none")) for s in ("1e-3", "0.04", "10")]
    dense = [Row(dataset, small, "dense", o.lr * factor, f"dense, width {small.width}") for factor in o.factors]
    bench.run_all([ours, *without, *dense], o.seeds)
    lines = [(row.label, f"{row.numbers() or 0:,}", f"{row.lr:g}", row.loss()) for row in [ours, *without, *dense]]
    table(f"At 10x: {dataset}", describe(o, full), ["", "trained numbers", "lr", "held-out loss"], lines)
    mean = {row: statistics.mean(end["eval_loss"] for end in row.ends) if all(row.ends) else math.inf for row in [ours, *without, *dense]}
    for what, others in (("without D at its best sigma_0", without), ("the dense model of as many numbers at its best rate", dense)):
        best = min(mean[row] for row in others)
        print(f"\nStable-RPS {mean[ours]:.3f}, {what} {best:.3f}: {'lower' if mean[ours] < best else 'NOT lower'}")


def sigma(bench, dataset):
    """Without clipping, which would hide what is to be seen."""
    o, full = bench.options, Sizes(bench.options.width, bench.options.layers, VOCABULARY[dataset])
    rates = {"adamw": o.lr, "sgd": o.sgd_lr}

    def row(sigma_0, precond, optimizer):
        return Row(dataset, full, "rps", rates[optimizer], "", *rps(10, f"sharing.sigma_0={sigma_0}", f"sharing.precond={precond}", f"optimizer.name={optimizer}", "train.clip=0"))

    columns = [(optimizer, precond) for optimizer in rates for precond in ("D", "none")]
    grid = {s: [row(s, precond, optimizer) for optimizer, precond in columns] for s in ("1e-3", "0.004", "0.04", "0.4", "10")}
    dense = [Row(dataset, full, "dense", rate, "", f"optimizer.name={name}", "train.clip=0") for name, rate in rates.items()]
    bench.measure([one for some in grid.values() for one in some] + dense)
    lines = [(s, *(one.loss() for one in some)) for s, some in grid.items()]
    lines.append(("dense, 1x", dense[0].loss(), "", dense[1].loss(), ""))
    table(f"Deviation of the cells: {dataset}", describe(o, full, f". 10x, no clipping, lr {o.lr:g} (AdamW) and {o.sgd_lr:g} (SGD, momentum 0.9); held-out loss"),
          ["sigma_0", *(f"{'AdamW' if name == 'adamw' else 'SGD'}, {'with D' if precond == 'D' else 'without'}" for name, precond in columns)], lines)


def kappa(bench, dataset):
    o, full = bench.options, Sizes(bench.options.width, bench.options.layers, VOCABULARY[dataset])
    rates = [o.lr / 2, o.lr, 2 * o.lr]
    grid = [(level, kind, [Row(dataset, full, "rps", rate, "", *rps(level, f"sharing.kappa={kind}")) for rate in rates])
            for level in (4, 10, 32) for kind in ("unit", "iso")]
    dense = [Row(dataset, full, "dense", rate, "") for rate in rates]
    bench.run_all([row for _, _, rows in grid for row in rows] + dense, o.seeds)
    lines = [(f"{level}x", kind, *(row.loss() for row in rows)) for level, kind, rows in grid] + [("1x", "dense", *(row.loss() for row in dense))]
    table(f"Size of Adam's steps: {dataset}", describe(o, full, "; held-out loss by learning rate"), ["compression", "kappa", *(f"{rate:g}" for rate in rates)], lines)


def groups(bench, dataset):
    o, full = bench.options, Sizes(bench.options.width, bench.options.layers, VOCABULARY[dataset])

    def row(mapper, level, precond, shared):
        return Row(dataset, full, "rps", o.lr, "", f"sharing.compression={level}", f"sharing.shared={shared}", f"sharing.mapper={mapper}", f"sharing.precond={precond}")

    sets = {"linears and embedding": '["linears","embedding"]', "linears": '["linears"]'}
    grid = [(level, name, mapper, [row(mapper, level, precond, shared) for precond in ("D", "none")])
            for level in (1, 4, 10) for name, shared in sets.items() for mapper in ("randomfold", "hashed", "roast-tile")]
    bench.run_all([one for *_, rows in grid for one in rows], o.seeds)
    lines = [(f"{level}x", name, mapper, f"{rows[0].numbers() or 0:,}", *(one.loss() for one in rows)) for level, name, mapper, rows in grid]
    table(f"Mappers, and what is shared: {dataset}", describe(o, full, f". lr {o.lr:g}; held-out loss"),
          ["compression", "shared", "mapper", "trained numbers", "with D", "without"], lines)


def parse_arguments():
    root = Path(sys.argv[1])
    data = root.parent / "shared/data"
    parser = argparse.ArgumentParser(prog="scripts/rps_experiments", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--data", nargs="+", choices=list(VOCABULARY), help="default: both for curve and proof, stories for the others")
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="compressions of the curve")
    parser.add_argument("--lr", type=float, default=4e-3, help="of AdamW, for every method")
    parser.add_argument("--sgd-lr", type=float, default=SGD_LR)
    parser.add_argument("--sweep", choices=["none", "dense", "all"], default="none",
                        help="these methods find their rate with the first seed, among --factors times --lr")
    parser.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2, 4])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one seed, 20 short steps of a small model: does everything run?")
    parser.add_argument("--stories", type=Path, default=data / "datasets/corpora/tinystories.jsonl")
    parser.add_argument("--stories-tokenizer", type=Path, default=data / "models/stories260K")
    parser.add_argument("--trainer", type=Path, default=root / "build/release/trainer")
    options = parser.parse_args(sys.argv[2:])
    options.root = root
    if options.quick:
        options.steps, options.length, options.width, options.layers, options.seeds = 20, 64, 64, 3, options.seeds[:1]
    if options.width % 8:
        parser.error(f"--width is {options.width}: it must be a multiple of 8")
    return options


def main():
    options = parse_arguments()
    bench = Bench(options)
    run = {"curve": curve, "proof": proof, "sigma": sigma, "kappa": kappa, "groups": groups}
    for part in options.parts:
        for dataset in options.data or (["stories", "world"] if part in ("curve", "proof") else ["stories"]):
            run[part](bench, dataset)
    print(f"{bench.spent:.0f} seconds of runs", file=sys.stderr)


main()
