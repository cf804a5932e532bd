"""Rows of scripts/bench: products, and few rows whose weights come from memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

from bench_peers import LIB, NAMES, Server, mkl_kernel, openblas_variants, torch_variants
from bench_table import Series

QUICK_CASES = ("square", "up forward M=512 N=1536 K=576 NT b=f32", "weight gradient", "lora in M=512 N=8 K=576",
               "lora out M=512 N=576 K=8 ", "decode M=1 N=1536 K=576 NT b=f32")


def listed(options, environment=None):
    """Lines of gemm_bench --list, and the one that tells of the library."""
    done = subprocess.run([options.build / "tests/gemm_bench", "--list"], check=True, capture_output=True, text=True,
                          env={**os.environ, **(environment or {})})
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines, next((line for line in lines if "library" in line), {})


def cases(options):
    lines, library = listed(options)
    found, seen = [], set()
    for number, case in enumerate(line for line in lines if "case" in line):
        if case["case"] not in seen:
            found.append({**case, "number": number})
        seen.add(case["case"])
    return found, library.get("library", "")


class Contenders:
    """Programs that multiply with the same instructions, started once, which take turns."""

    def __init__(self, options, target):
        program = [options.build / "tests/gemm_bench", options.threads, target, "--serve"]
        _, library = cases(options)
        self.ours = Server([*program, "ours"])
        self.variants = [(v, Server([*program, "library"], v.environment), False)
                         for v in (openblas_variants(target, options.cores.get(target)) if library == "OpenBLAS" else [])]
        self.variants += [(v, Server([sys.executable, LIB / "torch_gemm.py", options.threads], v.environment), True)
                          for v in torch_variants(target, options.work)]

    def measure(self, case, seconds):
        """One round: (ours, [(variant, theirs), ...]), each with median_us, best_us and processor_us."""
        plain = f"{case['number']} {seconds}"
        for_torch = json.dumps({**case, "seconds": seconds})
        ours = self.ours.ask(plain)
        return ours, [(v, server.ask(for_torch if torch else plain)) for v, server, torch in self.variants]

    def best_square(self, square, seconds):
        """GFLOP/s of the best product of any of them, in one round, and the most for a second of processor time."""
        ours, theirs = self.measure(square, seconds)
        found = [rates(square, line, "best_us") for line in [ours, *(line for _, line in theirs)]]
        return max(wall for wall, _ in found), max(processor for _, processor in found)

    def close(self):
        for server in [self.ours, *(server for _, server, _ in self.variants)]:
            server.close()


def bar_of(target, case, family):
    """In AVX2: of each library's product. Others have no bar but what they were before."""
    if target != "avx2":
        return None
    return 1.0 if case["name"] == "square" and family.startswith("PyTorch") else 0.97


def rates(case, line, time="median_us"):
    giga = 2e-3 * case["m"] * case["n"] * case["k"]
    return giga / line[time], giga / line["processor_us"]


def measured(contenders, case, options):
    """Series of ours and of each variant over the rounds."""
    ours, theirs = Series("ours"), {}
    for _ in range(options.rounds):
        line, others = contenders.measure(case, options.seconds)
        ours.add(*rates(case, line))
        for variant, answer in others:
            theirs.setdefault(variant.name, (variant.family, Series(variant.name)))[1].add(*rates(case, answer))
    return ours, theirs


def best_of_families(theirs):
    found = {}
    for family, series in theirs.values():
        if family not in found or series.median() > found[family].median():
            found[family] = series
    return found


def run_target(options, table, target, chosen):
    table.section(f"Products, {NAMES[target]}", "product", "GFLOP/s. Stored bf16 and f16 are compared with the f32 product of "
                  "the library, which has none of mixed types. One row is its product of a matrix and a vector.")
    contenders = Contenders(options, target)
    for case in chosen:
        ours, theirs = measured(contenders, case, options)
        for family, series in best_of_families(theirs).items():
            table.row(case["case"], "GFLOP/s", ours, series, bar_of(target, case, family))
    contenders.close()
    for variant in torch_variants(target, options.work):
        table.note(f"{variant.name}: {mkl_kernel(variant) or 'no MKL'}")
    for variant in openblas_variants(target, options.cores.get(target)):
        table.note(f"{variant.name}: {listed(options, variant.environment)[1].get('config', 'not there')}")


def products(options, table):
    found, library = cases(options)
    if library != "OpenBLAS":
        print(f"\nThe benchmarks are linked with {library or 'no CBLAS'}: nothing of OpenBLAS is measured.")
    for target in options.targets:
        chosen = [case for case in found if options.wants("products", NAMES[target], case["case"])]
        if options.quick:
            chosen = [case for case in chosen if any(name in case["case"] for name in QUICK_CASES)]
        if chosen:
            run_target(options, table, target, chosen)


def few_rows(options, table):
    """decode_bench: GB/s of weights beside a plain read by the same threads, in the same run."""
    bars = {("1", "f32"): 0.9, ("1", "bf16"): 0.8, ("1", "f16"): 0.8}
    for target in options.few_targets:
        if not options.wants("few rows", NAMES[target]):
            continue
        table.section(f"Few rows from memory, {NAMES[target]}", "product", "GB/s of weights. The peer is a plain read of as many "
                      "bytes by the same threads: the better one of those before and behind, in the same run.")
        ours, read = {}, {}
        for _ in range(1 if options.quick else max(3, options.rounds // 2)):
            done = subprocess.run([options.build / "tests/decode_bench", str(options.threads), target], check=True,
                                  capture_output=True, text=True, env={**os.environ, "GOMP_SPINCOUNT": "2000"})  # as trainer
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            reads = [(line["rate"], line) for line in lines if line["bench"] == "read"]
            best = max(rate for rate, _ in reads)
            for line in (line for line in lines if line["bench"] == "decode"):
                by_processor = line["rate"] * line["median_us"] / line["processor_us"]
                ours.setdefault(line["case"], Series("ours")).add(line["rate"], by_processor)
                plain = max(reads, key=lambda item: item[0])[1]
                read.setdefault(line["case"], Series("plain read")).add(best, best * plain["median_us"] / plain["processor_us"])
        for name, series in ours.items():
            words = dict(word.split("=") for word in name.split())
            table.row(name, "GB/s", series, read[name], bars.get((words["M"], words["b"]), 0))
