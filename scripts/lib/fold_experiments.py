"""Runs the grids behind docs/foldgpt.md with `trainer` and prints their tables. Nothing but the standard library.

A cell is a folder of OUT: the stages of job = "compress" up to the cure, and an evaluation of the folded model behind stage share and behind stage cure. Its
weights are thrown away. Cells of one seed and model take their probe and gates from one run.
"""
import argparse
import dataclasses
import json
import math
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiment_runs import run_once, spell, spread, table

PARTS = ["grid", "rivals", "bytes", "smollm2"]
SELECTORS = ["random", "bi", "gates"]
LEVELS = ["tie", "norm", "scale", "lora", "mos"]
SHARES, GROUPS = ["0", "0.125", "0.25"], [1, 2, 3]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One way to make the model smaller. `target`: of the stored parameters, 0: none; `replace`: of fold.replace."""
    selector: str
    remove: str
    level: str = "none"
    group: int = 1
    cure: str = "adapter"
    replace: str = "none"
    target: str = ""

    @property
    def name(self):
        parts = [self.selector, f"rho{self.remove}", f"g{self.group}", self.level, self.cure]
        parts += [self.replace] if self.replace != "none" else []
        return "-".join(parts + ([f"target{self.target}"] if self.target else []))


def grid_cells():
    """Those that differ: a share of 0 has no selector, and groups of one have no children."""
    cells = []
    for remove in SHARES:
        for selector in ["bi"] if remove == "0" else SELECTORS:
            cells.append(Cell(selector, remove))
            cells += [Cell(selector, remove, level, group) for group in GROUPS[1:] for level in LEVELS]
    return cells


def rival_cells():
    blocks = [Cell("run", remove, cure=cure, replace=replace) for replace in ("none", "mse", "both") for remove in SHARES[1:] for cure in ("adapter", "full")]
    full = [Cell(selector, remove, cure="full") for remove in SHARES[1:] for selector in SELECTORS]
    return [*blocks, Cell("bi", "0", cure="full"), *full]


class World:
    """The embedded model (recipes/world/base)."""

    def __init__(self, options):
        o = self.options = options
        self.out, self.recipe, self.gate_share = o.out / "world", o.root / "recipes/fold_tiny.toml", "0.25"
        self.rate = {"adapter": o.lr, "full": o.full_lr}
        self.settings = [f"train.batch={o.batch}", f"train.sequence_length={o.length}", f"fold.gate_steps={o.gate_steps}"]
        self.evaluated = [f"evaluate.rows={o.rows}"]
        self.steps, self.gate_steps, self.threads, self.seeds = o.steps, o.gate_steps, 1, o.seeds


class SmolLM2:
    """SmolLM2-135M-Instruct on text of WikiText-2."""

    def __init__(self, options):
        o = self.options = options
        self.out, self.recipe, self.gate_share = o.out / "smollm2", o.root / "recipes/fold_smollm2.toml", o.smollm2_share
        self.rate = {"adapter": 1e-3, "full": 1e-4}
        self.evaluated = [f"evaluate.rows={o.smollm2_rows}"]
        self.steps, self.gate_steps, self.threads, self.seeds = o.smollm2_steps, o.smollm2_gate_steps, o.smollm2_threads, o.smollm2_seeds
        self.settings = [f"model.path={o.smollm2.resolve()}", f"data.train={o.wikitext.resolve()}", f"fold.gate_steps={o.smollm2_gate_steps}"]


class Bench:
    def __init__(self, model):
        self.model, self.o = model, model.options
        model.out.mkdir(parents=True, exist_ok=True)

    def common(self, seed):
        m = self.model
        return [self.o.trainer.resolve(), m.recipe, *m.settings, f"train.seed={seed}", f"run.threads={m.threads}", f"data.cache={m.out.resolve() / 'cache'}",
                "log.progress=none", "evaluate.every=0"]

    def share(self, cell):
        """That the cell's gates are trained for: with a target that of the recipe, and otherwise one for all shares."""
        return cell.remove if cell.target else self.model.gate_share

    def donor(self, share, seed):
        return self.model.out / f"gates{share}-s{seed}"

    def gates(self, job):
        """The run whose probe and gates all cells of a seed and share take over."""
        share, seed = job
        folder = self.donor(share, seed)
        run_once(folder, [[*self.common(seed), f"fold.remove={share}", "fold.until=gates", f"run.dir={folder.resolve()}"]])

    def evaluate(self, seed, sharing=None):
        words = [word for word in self.common(seed) if not str(word).startswith("fold.")]
        loaded = ["sharing.method=fold", f"sharing.load={sharing.resolve()}"] if sharing else []
        return [*words, "job=evaluate", "adapter.method=none", *loaded, *self.model.evaluated, "--quiet"]

    def original(self, seed):
        folder = self.model.out / f"original-s{seed}"
        run_once(folder, [self.evaluate(seed)])
        return folder

    def commands(self, cell, seed):
        folder, m = self.model.out / f"{cell.name}-s{seed}", self.model
        replaced = 0 if cell.replace == "none" else m.steps // 2  # of equal tokens in all
        words = [f"fold.remove={cell.remove}", f"fold.selector={cell.selector}", f"fold.group={cell.group}", f"fold.cure={cell.cure}",
                 f"optimizer.lr={m.rate[cell.cure]}", f"train.steps={m.steps - replaced}", "checkpoint.every=0"]
        words += [f"fold.child={cell.level}"] if cell.level != "none" else []
        words += [f"fold.gate_remove={self.share(cell)}", f"fold.reuse={self.donor(self.share(cell), seed).resolve()}"]
        words += [f"fold.target={cell.target}"] if cell.target else []
        words += ["adapter.method=none"] if cell.cure == "full" else []
        if cell.replace != "none":
            steps = replaced // (2 if cell.replace == "both" else 1)
            words += [f"fold.replace={cell.replace}", f"fold.replace_steps={steps}", f"fold.replace_lr={self.o.replace_lr}"]
        return [[*self.common(seed), *words, "fold.until=cure", f"run.dir={folder.resolve()}"],
                self.evaluate(seed, folder / "compress/shared"), self.evaluate(seed, folder / "compress/cured")]

    def run(self, job):
        cell, seed = job
        folder = self.model.out / f"{cell.name}-s{seed}"
        seconds = run_once(folder, self.commands(cell, seed))
        cured = folder / "compress/cured/fold.safetensors"
        if cured.exists():
            (folder / "cured-bytes.txt").write_text(str(cured.stat().st_size))
        for part in [*folder.glob("compress/shared"), *folder.glob("compress/cured"), *folder.glob("compress/checkpoints"), folder / "sharing"]:
            shutil.rmtree(part, ignore_errors=True)
        return seconds

    def run_all(self, cells):
        with ThreadPoolExecutor(self.o.jobs if self.model.threads == 1 else 1) as pool:
            shares = sorted({self.share(cell) for cell in cells})
            list(pool.map(self.gates, [(share, seed) for share in shares for seed in self.model.seeds]))
            list(pool.map(self.original, self.model.seeds))
            seconds = sum(pool.map(self.run, [(cell, seed) for seed in self.model.seeds for cell in cells]))
        print(f"{seconds:.0f} seconds of cells", file=sys.stderr)

    # ---- Figures ----

    def perplexity(self, name, command):
        """Of what the command of that number printed, over the seeds; a point that is not finite is left out, and told."""
        texts = [(self.model.out / f"{name}-s{seed}/stdout-{command}.txt").read_text() for seed in self.model.seeds]
        losses = [loss for loss in (json.loads(text)["loss"] for text in texts) if loss is not None and loss < 50]
        return spread([math.exp(loss) for loss in losses], len(texts), "%.2f")

    def shared(self, cell):
        return self.perplexity(cell.name, 1)

    def cured(self, cell):
        return self.perplexity(cell.name, 2)

    def stored_numbers(self, cell, state):
        file = {"shared": "share.json", "cured": "cure.json"}[state]
        return {json.loads((self.model.out / f"{cell.name}-s{seed}/compress/{file}").read_text())["parameters_stored"] for seed in self.model.seeds}

    def stored(self, cell, state):
        values = self.stored_numbers(cell, state)
        return " to ".join(f"{value:,}" for value in sorted({min(values), max(values)}))

    def tokens(self):
        recipe = dict(word.split("=", 1) for word in map(str, self.model.settings) if "=" in word)
        return self.model.steps * int(recipe.get("train.batch", 4)) * int(recipe.get("train.sequence_length", 256))


# ---- The parts ----


def grid(options):
    bench = Bench(World(options))
    cells = grid_cells()
    bench.run_all(cells)
    rows = []
    for cell in cells:
        plain = dataclasses.replace(cell, group=1, level="none")
        rows.append((cell.remove, "none" if cell.remove == "0" else cell.selector, cell.group, cell.level, bench.shared(plain), bench.shared(cell),
                     bench.cured(cell), bench.stored(cell, "shared"), bench.stored(cell, "cured")))
    table("Perplexity at four points: world/base", note(bench, "Groups of one have no children, and a share of 0 has no selector"),
          ["removed share", "selector", "group", "child", "removed", "shared", "cured", "stored, shared", "stored, cured"], rows)


def note(bench, more):
    return (f"Original: {bench.perplexity('original', 0)}. Cure: {bench.tokens():,} tokens; gates: {bench.model.gate_steps} steps. "
            f"Seed {spell(bench.model.seeds)}. {more}.")


def rivals(options):
    bench = Bench(World(options))
    cells = rival_cells() + [Cell(selector, remove) for remove in SHARES[1:] for selector in SELECTORS] + [Cell("bi", "0")]
    bench.run_all(cells)
    table("One trained block, and all weights cured: world/base", note(bench, "A replaced run spends half of these tokens on its block"),
          ["removed share", "selector", "replaced", "cure", "before the cure", "cured", "stored, cured"],
          [(cell.remove, "none" if cell.remove == "0" else cell.selector, cell.replace, cell.cure, bench.shared(cell), bench.cured(cell), bench.stored(cell, "cured"))
           for cell in sorted(cells, key=lambda cell: (cell.remove, cell.selector, cell.replace, cell.cure))])


class FromScratch:
    """Models trained from random weights for as many tokens as world/base and the cure together."""

    BATCH, LENGTH = 8, 256  # of recipes/pretrain_tiny.toml

    def __init__(self, bench):
        o = self.o = bench.o
        self.out = bench.model.out
        self.base = json.loads((o.root / "recipes/world/base/config.json").read_text())
        width, mlp = self.base["hidden_size"], self.base["intermediate_size"]
        self.block, self.norms, self.embedding = 4 * width ** 2 + 3 * width * mlp, 2 * width, self.base["vocab_size"] * width
        self.steps = o.scratch_steps + -(-bench.tokens() // (self.BATCH * self.LENGTH))
        self.text = self.out / "pretrain.jsonl"

    def parameters(self, layers):
        return layers * (self.block + self.norms) + self.base["hidden_size"] + self.embedding

    def layers_of(self, numbers):
        return min(range(1, self.base["num_hidden_layers"] + 1), key=lambda layers: abs(self.parameters(layers) - numbers))

    def write_text(self):
        if not self.text.exists():
            part = self.text.with_suffix(".part")
            make = [sys.executable, self.o.root / "scripts/make_world", "--pretrain", part, "--documents", str(self.o.scratch_documents)]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
            part.rename(self.text)

    def command(self, name, words, layers, seed):
        config = self.out / f"layers{layers}.json"
        config.write_text(json.dumps({**self.base, "num_hidden_layers": layers}, indent=1) + "\n")
        return [self.o.trainer.resolve(), self.o.root / "recipes/pretrain_tiny.toml", f"model.path={config.resolve()}", f"data.train={self.text.resolve()}",
                f"data.cache={self.out.resolve() / 'cache'}", f"train.steps={self.steps}", f"train.seed={seed}", "evaluate.every=0", "checkpoint.every=0",
                "log.progress=none", "run.threads=1", *words, f"run.dir={(self.out / f'{name}-s{seed}').resolve()}"]

    def dense(self, numbers):
        layers = self.layers_of(numbers)
        return f"scratch-{layers}", [], layers

    def rps(self, numbers):
        full = self.base["num_hidden_layers"]
        matrices = full * self.block + self.embedding
        compression = matrices / (numbers - (self.parameters(full) - matrices))
        return f"rps-{numbers}", ["sharing.method=rps", f"sharing.compression={compression:.4f}", 'sharing.shared=["linears","embedding"]', "model.dtype=f32"], full

    def end(self, name, seed):
        lines = (self.out / f"{name}-s{seed}/metrics.jsonl").read_text().splitlines()
        return next(json.loads(line) for line in reversed(lines) if "eval_loss" in line)

    def run(self, job):
        (name, words, layers), seed = job
        seconds = run_once(self.out / f"{name}-s{seed}", [self.command(name, words, layers, seed)])
        for part in (self.out / f"{name}-s{seed}").iterdir():
            if part.is_dir():
                shutil.rmtree(part)  # weights
        return seconds


def bytes_(options):
    bench = Bench(World(options))
    cells = [Cell("gates", "0.25"), Cell("gates", "0.25", "scale", 2)]
    bench.run_all(cells)
    scratch = FromScratch(bench)
    scratch.write_text()
    numbers = {cell: max(bench.stored_numbers(cell, "cured")) for cell in cells}
    models = [kind(numbers[cell]) for cell in cells for kind in (scratch.dense, scratch.rps)]
    with ThreadPoolExecutor(options.jobs) as pool:
        seconds = sum(pool.map(scratch.run, [(model, seed) for seed in options.scratch_seeds for model in models]))
    print(f"{seconds:.0f} seconds of models from scratch", file=sys.stderr)

    def row(what, count, megabytes, perplexity):
        return what, f"{count:,}", f"{megabytes:.2f}", perplexity

    def from_scratch(what, name, width):
        ends = [scratch.end(name, seed) for seed in options.scratch_seeds]
        count = ends[0]["trained_parameters"]
        return row(what, count, width * count / 1e6, spread([math.exp(end["eval_loss"]) for end in ends], len(ends), "%.2f"))

    full = scratch.parameters(scratch.base["num_hidden_layers"])
    rows = [row("original", full, 2 * full / 1e6, bench.perplexity("original", 0))]
    for cell, (dense, rps) in zip(cells, zip(models[::2], models[1::2])):
        size = max(int((bench.model.out / f"{cell.name}-s{seed}/cured-bytes.txt").read_text()) for seed in bench.model.seeds)
        rows += [row(f"folded and cured: {cell.name}", numbers[cell], size / 1e6, bench.cured(cell)),
                 from_scratch(f"dense, {dense[2]} layers, from scratch", dense[0], 2), from_scratch("Stable-RPS, from scratch", rps[0], 4)]
    tokens = scratch.steps * scratch.BATCH * scratch.LENGTH
    more = f"From scratch: {tokens:,} tokens, as many as base and cure together, seed {spell(options.scratch_seeds)}"
    table("Quality against bytes: world", note(bench, more), ["model", "numbers", "MB", "perplexity"], rows)


def smollm2(options):
    """Two thirds of the stored parameters in three ways, and a share of an eighth."""
    bench = Bench(SmolLM2(options))
    least = options.smollm2_share
    cells = [Cell("bi", least), Cell("gates", "0.125", "lora", 2, target="0.667"), Cell("gates", least)]
    if options.more:
        cells += [Cell(selector, "0.125", cure=cure) for selector in ("gates", "bi") for cure in ("adapter", "full")]
        cells += [Cell("run", "0.125", cure=cure, replace="mse") for cure in ("adapter", "full")]
    bench.run_all(cells)
    table("SmolLM2-135M-Instruct", note(bench, "WikiText-2 (valid, held-out articles), rows of 256 tokens, the model's own tokenizer"),
          ["removed share", "selector", "group", "child", "replaced", "cure", "before the cure", "cured", "stored, cured"],
          [(cell.remove, cell.selector, cell.group, cell.level, cell.replace, cell.cure, bench.shared(cell), bench.cured(cell), bench.stored(cell, "cured"))
           for cell in cells])


def parse_arguments():
    root = Path(sys.argv[1])
    parser = argparse.ArgumentParser(prog="scripts/fold_experiments", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=40, help="of the cure")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--gate-steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=2e-3, help="of a cure by an adapter")
    parser.add_argument("--full-lr", type=float, default=1e-3, help="of a cure of all weights")
    parser.add_argument("--replace-lr", type=float, default=1e-3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--scratch-steps", type=int, default=5000, help="of world/base, in steps of 8 x 256 tokens")
    parser.add_argument("--scratch-documents", type=int, default=200000)
    parser.add_argument("--scratch-seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--rows", type=int, default=0, help="of the embedded world's held-out texts, 256 tokens each; 0: all")
    parser.add_argument("--smollm2", type=Path, default=root / "models/smollm2", help="its folder")
    parser.add_argument("--wikitext", type=Path, default=root / ".cache/wikitext2.jsonl", help="what scripts/wikitext_articles made")
    parser.add_argument("--smollm2-share", default="0.433", help="removal alone that stores two thirds")
    parser.add_argument("--smollm2-steps", type=int, default=300)
    parser.add_argument("--smollm2-gate-steps", type=int, default=240)
    parser.add_argument("--smollm2-rows", type=int, default=0, help="of held-out articles, 256 tokens each; 0: all")
    parser.add_argument("--smollm2-threads", type=int, default=1)
    parser.add_argument("--smollm2-seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--more", action="store_true", help="smollm2: the share of an eighth, too, by gates, block influence and one trained block")
    parser.add_argument("--quick", action="store_true", help="one seed, a few short steps: does everything run?")
    parser.add_argument("--trainer", type=Path, default=root / "build/release/trainer")
    options = parser.parse_args(sys.argv[2:])
    options.root = root
    if options.quick:
        options.steps, options.gate_steps, options.length, options.seeds = 4, 10, 64, options.seeds[:1]
        options.rows, options.scratch_steps, options.scratch_documents, options.scratch_seeds = 4, 4, 200, [1]
        options.smollm2_steps, options.smollm2_gate_steps, options.smollm2_rows = 2, 2, 2
    return options


def main():
    options = parse_arguments()
    run = {"grid": grid, "rivals": rivals, "bytes": bytes_, "smollm2": smollm2}
    for part in options.parts:
        run[part](options)


main()
