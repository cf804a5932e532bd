"""Rows of scripts/bench: decoding beside llama.cpp's fork ik_llama.cpp, both in f16."""

import importlib.util
import subprocess
import sys

from bench_peers import LIB, NAMES, Server
from bench_table import Series

BATCHES = (1, 8)


def gguf_file(options, folder):
    file = options.work / f"{folder.name}.gguf"
    if not file.exists():
        part = file.with_suffix(".part")
        subprocess.run([sys.executable, LIB / "write_gguf.py", folder, part], check=True)
        part.rename(file)
    return file


def decoding(options, table):
    wanted = [target for target in options.few_targets if options.wants("decoding", NAMES[target])]
    if not wanted:
        return
    table.section("Decoding", "sequences at once", "f16, tokens a second behind 32 tokens each. Ours chooses each token, the "
                  "peer forms the logits alone. Its package holds AVX2 code.")
    if not importlib.util.find_spec("ik_llama_cpp"):
        return table.note("ik_llama_cpp is not there: decoding has no peer")
    folder = options.model_in("float16")
    peer = Server([sys.executable, LIB / "llama_decode.py", gguf_file(options, folder), "--threads", options.threads])
    for target in wanted:
        ours = Server([options.build / "tests/generate_bench", folder, options.threads, target, "--serve"])
        for batch in BATCHES:
            run(options, table, (ours, peer), batch, f"{batch}, ours in {NAMES[target]}")
        ours.close()
    peer.close()


def run(options, table, servers, batch, name):
    series = Series("ours"), Series("ik_llama.cpp")
    tokens = 24 if options.quick else 96
    for _ in range(options.rounds):
        for server, one in zip(servers, series):
            line = server.ask(f"{batch} {tokens}")
            one.add(line["tokens_per_second"], line["tokens_per_processor_second"])
    table.row(name, "tokens/s", *series)
