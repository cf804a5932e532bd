"""Folders shaped like the published models, through the trainer and back into transformers (see scripts/check_families)."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
from check_families_folders import COUNTS, WORDS, make_folder, published_model, reduced_configs, sentences
from check_families_oracle import Oracle, config_differences, difference, load_peft_alone, parameters_of, read_json
from transformers.utils import logging

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5   # of the largest logit; of a loss
CLEAR = 1e-3       # a margin between two logits, in parts of the largest, that no rounding turns
FALL = 0.2         # of a held-out loss, at least, by an adapter; a tenth of it by others
STORED = ("torch_dtype", "dtype")  # an export in f32 says so
STOP_SECONDS = 60

RECIPE = """job = "train"
[model]
path = "model"
dtype = "f32"
[data]
train = "train.jsonl"
eval = "eval.jsonl"
[train]
steps = 20
batch = 4
sequence_length = 192
[optimizer]
lr = 1e-2
warmup_steps = 2
[run]
threads = 1
[checkpoint]
every = 5
keep = 2
"""
LORA = ["adapter.method=lora", "adapter.rank=4", "adapter.dropout=0.1"]
MOS = ["adapter.method=mos", "adapter.equivalent_rank=2", "adapter.rank=4", "adapter.shards=2", "adapter.dropout=0.1"]
# Methods whose results are exported as dense models: words for the trainer, what it trains, and keys of config.json that may differ.
DENSE = {
    "full": (["train.steps=12", "optimizer.lr=2e-3"], "model/model.safetensors", ()),
    "SPSA": ([*LORA[:2], "train.estimator=spsa", "train.steps=30", "train.batch=2", "optimizer.name=sgd", "optimizer.momentum=0",
              "optimizer.lr=4e-2", "spsa.probes=8", "spsa.eps=1e-2", "spsa.digest_every=8"], "adapter/lora.safetensors", ()),
    "RPS": (["sharing.method=rps", "sharing.compression=4", "model.init=random", "train.steps=12"], "sharing/rps.safetensors", ()),
    "depth": (["sharing.method=depth", "sharing.blocks=2", "model.init=random", "train.steps=12"], "sharing/depth.safetensors", ()),
    "fold": ([*LORA[:2], "job=compress", "train.steps=12", "fold.remove=0.2", "fold.gate_steps=20", "fold.gate_batch=2",
              "fold.calibration_rows=8", "fold.keep_head=1", "fold.group=2"], "sharing/fold.safetensors",
             ("num_hidden_layers", "layer_types", "no_rope_layers")),
}


class Failed(AssertionError):
    pass


def require(holds, message):
    if not holds:
        raise Failed(message)


class Shape:
    """One model's folder and what is asked of it. Each check returns what its cell of the table says, or raises."""

    def __init__(self, folder, name, config, trainer, seed):
        self.folder, self.name, self.program = folder, name, trainer
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make_folder(folder, name, config, seed)
        (folder / "recipe.toml").write_text(RECIPE)
        self.eval_texts = [json.loads(line)["text"] for line in (folder / "eval.jsonl").read_text().splitlines()]
        # Of many lengths, shorter than a window and longer; they are continued together.
        self.prompts = [text[:length] for text, length in zip(sentences(6, seed + 1), (150, 9, 120, 60, 200, 30))]

    def checks(self):
        yield "parameters", self.check_parameters
        yield "read", self.check_reading
        yield "transformers 5 keys", self.check_new_keys
        yield "a key counts", self.check_that_a_key_counts
        for method, words in (("LoRA", LORA), ("MoS", MOS)):
            yield method, partial(self.check_training, method, words)
            yield f"{method} tokens", partial(self.check_tokens, method, words)
            yield f"{method} exports", partial(self.check_exports, method, words)
        yield "config.json", self.check_config
        for method in DENSE:
            yield method, partial(self.check_dense, method)

    # ---- the trainer ---------------------------------------------------------------------------------------------------

    def command(self, words):
        return [self.program, "recipe.toml", *words]

    def run(self, *words, code=0):
        done = subprocess.run(self.command(words), cwd=self.folder, capture_output=True, text=True)
        require(done.returncode == code, f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def loss(self, *words):
        return json.loads(self.run(*words, "job=evaluate"))["loss"]

    def held_out(self, run):
        lines = map(json.loads, (self.folder / run / "metrics.jsonl").read_text().splitlines())
        return [line["loss"] for line in lines if line.get("split") == "eval"]

    def stop_and_go_on(self, run, words):
        """Stops the run by a signal once it has told of a few steps, then gives the same command again."""
        for _ in range(5):
            shutil.rmtree(self.folder / run, ignore_errors=True)
            if self.stopped(run, words):
                self.run(*words, f"run.dir={run}")
                return
        raise Failed("the run ended before the signal, five times")

    def stopped(self, run, words):
        process = subprocess.Popen(self.command([*words, f"run.dir={run}"]), cwd=self.folder,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        metrics = self.folder / run / "metrics.jsonl"
        deadline = time.monotonic() + STOP_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= 5:
                process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.001)
        errors = process.communicate(timeout=STOP_SECONDS)[1]
        require(process.returncode in (0, 130), f"stopped: exit code {process.returncode}\n{errors}")
        return process.returncode == 130

    # ---- checks --------------------------------------------------------------------------------------------------------

    def check_parameters(self):
        """Of the published sizes: what tests/golden/published.json says, and tests/cli/families_test.cpp counts, is transformers' number."""
        published, expected = published_model(self.name)
        found = parameters_of(published)
        require(found == expected, f"transformers counts {found}, published.json says {expected}")
        return f"{found:,}"

    def check_reading(self):
        """The held-out loss, and log-probabilities of single tokens, of the folder as it is."""
        oracle = Oracle(self.folder / "model")
        require(not oracle.odd_keys(), oracle.odd_keys())
        error = self.compare_loss(self.loss("run.dir=base"), oracle)
        return f"{max(error, self.compare_words(oracle, [])):.0e}"

    def compare_loss(self, found, oracle, tolerance=TOLERANCE):
        expected = oracle.loss(self.eval_texts)
        error = abs(found - expected) / expected
        require(error <= tolerance, f"loss {found}, transformers {expected}")
        return error

    def compare_words(self, oracle, words):
        """Largest error of the log-probability of a letter behind a prompt, in parts of the largest."""
        letters = [word[0] for word in WORDS[:len(self.prompts)]]
        errors, sizes = [], []
        for prompt, letter in zip(self.prompts, letters):
            (self.folder / "one.jsonl").write_text(json.dumps({"prompt": prompt, "completion": letter}) + "\n")
            found = self.loss("data.eval=one.jsonl", "run.dir=base", *words)
            expected = oracle.loss_of_token(prompt, letter)
            errors.append(abs(found - expected))
            sizes.append(expected)
        error = max(errors) / max(sizes)
        require(error <= TOLERANCE, f"log-probabilities differ by {error:.1e}")
        return error

    def check_new_keys(self):
        """The same folder with config.json as transformers 5 saves it: the same loss to the last bit, and exports that say the same."""
        other = self.folder / "model-5"
        shutil.copytree(self.folder / "model", other)
        shutil.copy(self.folder / "config-5/config.json", other)
        old, new = self.loss("run.dir=base"), self.loss("model.path=model-5", "run.dir=base")
        require(old == new, f"loss {new}, with the published keys {old}")
        self.run("model.path=model-5", "model.dtype=", *LORA, "train.steps=1", "run.dir=run-5", "export.merged=true")
        found = config_differences(other, self.folder / "run-5/model")
        require(not found, "; ".join(found))
        return "same bits"

    def check_that_a_key_counts(self):
        plain, changed = Oracle(self.folder / "model"), Oracle(self.folder / "model", **COUNTS[self.name])
        effect = max(difference(changed.logits(plain.encode(text)), plain.logits(plain.encode(text)))
                     for text in self.eval_texts[:4])
        require(effect > 20 * TOLERANCE, f"{COUNTS[self.name]} moves logits by {effect:.1e} only")
        return f"{effect:.0e}"

    def check_training(self, method, words):
        self.run(*words, f"run.dir={method}", "export.merged=true", "export.peft=true")
        losses = self.held_out(method)
        require(losses[-1] < losses[0] - FALL, f"held-out loss {losses[0]:.3f} -> {losses[-1]:.3f}")
        self.stop_and_go_on(f"{method}-stopped", words)
        self.require_same(method, f"{method}-stopped", f"adapter/{method.lower()}.safetensors")
        evaluated = self.loss(*words, f"run.dir={method}")
        require(evaluated == losses[-1], f"job=evaluate says {evaluated}, the training {losses[-1]}")
        return f"{losses[0]:.2f} -> {losses[-1]:.2f}"

    def check_tokens(self, method, words):
        """Greedy continuations, compared as far as transformers' margins are clear."""
        (self.folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in self.prompts))
        self.run("job=generate", *words, f"run.dir={method}", "generate.prompts_file=prompts.jsonl", "generate.max_new_tokens=32")
        samples = [json.loads(line) for line in (self.folder / method / "samples.jsonl").read_text().splitlines()]
        oracle = Oracle(self.folder / "model", self.folder / method / "peft")
        compared = 0
        for prompt, sample in zip(self.prompts, samples, strict=True):
            text, tokens, is_clear = oracle.greedy(prompt, 32, CLEAR)
            found = sample["completion"]
            same = found == text if is_clear else found.startswith(text)
            require(same, f"{prompt!r} goes on with {found!r}, in transformers with {text!r}")
            compared += tokens
        require(compared >= 60, f"only {compared} tokens have clear margins")
        return f"{compared} same"

    def check_exports(self, method, words):
        """Merged in f32 and PEFT's format, against each other and against the trainer's own figures."""
        merged = Oracle(self.folder / method / "model")
        require(not merged.odd_keys(), merged.odd_keys())
        peft = Oracle(self.folder / "model", self.folder / method / "peft")
        errors = [difference(merged.logits(ids), peft.logits(ids)) for ids in map(peft.encode, self.eval_texts)]
        alone = load_peft_alone(self.folder / method / "peft")
        require(max(errors) <= TOLERANCE, f"logits of the merged model and of PEFT differ by {max(errors):.1e}")
        base = Oracle(self.folder / "model")
        ids = base.encode(self.eval_texts[0])
        require(torch.equal(alone(torch.tensor([ids])).logits[0], peft.logits(ids)), "the PEFT folder names another base model")
        require(difference(base.logits(ids), peft.logits(ids)) > 100 * TOLERANCE, "the adapter changes nothing")
        trained = self.loss(*words, f"run.dir={method}")
        errors += [self.compare_loss(trained, peft), self.compare_loss(trained, merged),
                   self.compare_loss(self.loss(f"model.path={method}/model", "run.dir=base"), merged),
                   self.compare_words(peft, [*words, f"adapter.load={method}/adapter"])]
        return f"{max(errors):.0e}"

    def check_config(self):
        """Exports as the base is stored (bf16) say what its config.json says; in f32 all but the type of the numbers."""
        self.run("job=export", *LORA, "run.dir=LoRA-stopped", "export.merged=true", "model.dtype=")
        model = self.folder / "model"
        found = [*config_differences(model, self.folder / "LoRA-stopped/model"),
                 *config_differences(model, self.folder / "LoRA/model", STORED),
                 *config_differences(model, self.folder / "MoS/model", STORED)]
        require(not found, "; ".join(found))
        require(list(read_json(model)) == list(read_json(self.folder / "LoRA/model")), "the keys have another order")
        rounded = self.loss("model.path=LoRA-stopped/model", "run.dir=base")
        self.compare_loss(rounded, Oracle(self.folder / "LoRA-stopped/model"))
        require(rounded != self.held_out("LoRA")[-1], "the model that was to be rounded is not")
        return f"{len(read_json(model))} keys same"

    def check_dense(self, method):
        """Trained whole and with a stop; what it exports computes in transformers what was trained."""
        words, trained_file, may_differ = DENSE[method]
        run = f"run.dir={method}"
        self.run(*words, run)
        losses = self.held_out(method)
        require(losses[-1] < losses[0] - FALL / 10, f"held-out loss {losses[0]:.3f} -> {losses[-1]:.3f}")
        self.stop_and_go_on(f"{method}-stopped", words)
        self.require_same(method, f"{method}-stopped", trained_file)
        if method == "SPSA":
            self.run(*words, run, "job=replay")
            self.require_same(method, f"{method}-replay", trained_file)
        if method != "full":
            self.run(*words, run, "job=export", "export.merged=true")
        dense = Oracle(self.folder / method / "model")
        require(not dense.odd_keys(), dense.odd_keys())
        path = f"model.path={method}/model"
        error = max(self.compare_loss(self.loss(*words, run), dense), self.compare_loss(self.loss(path, "run.dir=base"), dense),
                    self.compare_words(dense, [path]))
        found = config_differences(self.folder / "model", self.folder / method / "model", (*STORED, *may_differ))
        require(not found, "; ".join(found))
        return f"{losses[0]:.2f} -> {losses[-1]:.2f}; {error:.0e}"

    def require_same(self, run, other, file):
        require((self.folder / run / file).read_bytes() == (self.folder / other / file).read_bytes(),
                f"{other}/{file} has other bits than {run}/{file}")


# ---- the table -------------------------------------------------------------------------------------------------------------

def check_all(options):
    """Cells by check and model; prints faults as they come. Returns the table and whether all is well."""
    table, well = {}, True
    for seed, (name, config) in enumerate(reduced_configs().items()):
        if options.only and name not in options.only:
            continue
        begin = time.monotonic()
        shape = Shape(options.folder / name, name, config, options.trainer, seed)
        for check, perform in shape.checks():
            try:
                cell = perform()
            except (Failed, OSError, ValueError, KeyError, IndexError, RuntimeError) as fault:
                cell, well = "FAILED", False
                print(f"{name}, {check}: {type(fault).__name__}: {fault}", file=sys.stderr, flush=True)
            table.setdefault(check, {})[name] = cell
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return table, well


def print_table(table):
    names = list(next(iter(table.values())))
    print(f"| | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for check, cells in table.items():
        print(f"| {check} | {' | '.join(cells[name] for name in names)} |")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="check_families", description=__doc__)
    parser.add_argument("folder", metavar="DIR", nargs="?", type=Path, help="where the folders are made; default: a temporary one")
    parser.add_argument("--trainer", metavar="PROGRAM", type=Path, default=ROOT / "build/release/trainer")
    parser.add_argument("--only", metavar="NAME", nargs="+", choices=list(reduced_configs()), help="these models alone")
    options = parser.parse_args()
    options.trainer = options.trainer.resolve()
    if not options.trainer.exists():
        parser.error(f"{options.trainer} is not there: build it with scripts/setup, or name another with --trainer")
    return options


def main():
    options = parse_arguments()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers, about itself
    with tempfile.TemporaryDirectory() as temporary:
        options.folder = (options.folder or Path(temporary)).resolve()
        table, well = check_all(options)
    print_table(table)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
