"""Rows of scripts/bench: batches of the inference engine beside llama.cpp's fork ik_llama.cpp, both in f16, and beside transformers."""

import importlib.util
import statistics
import sys
from dataclasses import dataclass

import bench_requests
from bench_decoding import gguf_file
from bench_peers import LIB, Server
from bench_table import Series, ratio_of

PEER, TORCH = "ik_llama.cpp", "transformers, f32"
# What `deterministic` may cost, and planning of a whole batch.
PRICE_BAR, PLANNING_BAR = 1.03, 0.01
# Of its threads' time so much has to be processor time in a round that counts.
LEAST_SHARE = 0.8
# Of the bytes that memory delivers, how many one sequence has to read; of the rate behind 1,024 tokens, what may be lost behind 8,000.
BANDWIDTH_BAR, LOSS_BAR = 0.85, 0.15


@dataclass(frozen=True)
class Case:
    """`batch` prompts with `shared` tokens in common and `own` of their own, continued by `new`. Measured are the new tokens, or with
    `whole` everything."""

    name: str
    batch: int
    shared: int
    own: int
    new: int
    bar: float
    whole: bool = False
    is_small: bool = True  # measured without `deterministic`, too, and by transformers, which keeps keys and values for each

    def tokens(self):
        """That are made in what is measured, by the peer."""
        if self.whole or not self.new:
            return self.batch * (self.own + self.new)
        return self.batch * self.new


CASES = (Case("prefill 512", 1, 0, 512, 0, 1.6),
         Case("decode 1", 1, 0, 32, 64, 1.0),
         Case("decode 32 behind 512", 32, 512, 32, 64, 2.0),
         Case("decode 32 behind 1024", 32, 1024, 32, 64, 0, is_small=False),
         Case("decode 32 behind 8000", 32, 8000, 32, 64, 0, is_small=False),
         Case("32 prompts of 256 and 32 new, nothing shared", 32, 0, 256, 32, 0, whole=True))


class Engine:
    """Our program, which waits for cases."""

    def __init__(self, options, folder):
        self.server = Server([options.build / "tests/engine_bench", folder, options.threads, "--serve"])

    def run(self, case, deterministic=True):
        new = max(1, case.new)  # of a prompt alone the first token is chosen, too
        return self.server.ask(f"run {case.batch} {case.shared} {case.own} {new} {int(deterministic)}")

    def bandwidth(self):
        return self.server.ask("read")["bytes_per_second"]


def rates(case, line):
    """(tokens a second, tokens a second of processor time) of a line of ours."""
    if case.new and not case.whole:
        decoding = line["decoding"]
        if not decoding["passes"]:
            raise RuntimeError(f"{case.name}: not measured, since no pass continues all sequences: some wait until others have ended")
        return decoding["tokens"] / decoding["seconds"], decoding["tokens"] / decoding["processor_seconds"]
    seconds, planning = line["seconds"], line["planning_seconds"]
    return case.tokens() / (seconds + planning), case.tokens() / (line["processor_seconds"] + planning)


class Measured:
    """Rounds of one case: ours, ours without `deterministic`, and the peers. A round in which one of them had fewer processors than
    threads says nothing of the others, since some wait by spinning; it is dropped."""

    def __init__(self, case, threads):
        self.case, self.threads, self.lines, self.bandwidths, self.dropped = case, threads, [], [], 0
        self.ours, self.free, self.peers = Series("ours"), Series("ours, not deterministic"), {}

    def rounds(self, count, engine, peers):
        """So many that count, but no more than twice as many in all."""
        while len(self.lines) < count and len(self.lines) + self.dropped < 2 * count:
            self.round(engine, peers)

    def round(self, engine, peers):
        case, bandwidth = self.case, engine.bandwidth()
        line = engine.run(case)
        found = {"ours": rates(case, line)}
        if case.is_small:
            found["free"] = rates(case, engine.run(case, deterministic=False))
        for name, peer in peers.items():
            if case.is_small or name == PEER:
                found[name] = rates_of_peer(case, peer)
        if any(wall / processor < LEAST_SHARE * self.threads for wall, processor in found.values()):
            self.dropped += 1
            return
        self.bandwidths.append(bandwidth)
        self.lines.append(line)
        for name, pair in found.items():
            self.series(name).add(*pair)

    def series(self, name):
        return {"ours": self.ours, "free": self.free}.get(name) or self.peers.setdefault(name, Series(name))

    def median(self, value):
        return statistics.median(map(value, self.lines))


def rates_of_peer(case, peer):
    line = peer.ask(f"{case.batch} {case.shared} {case.own} {case.new} {int(case.whole)}")
    return case.tokens() / line["seconds"], case.tokens() / line["processor_seconds"]


def engine(options, table):
    chosen = [case for case in CASES if options.wants("engine", case.name)]
    wants_file = options.wants("engine", bench_requests.NAME)
    if not chosen and not wants_file:
        return
    table.section("The inference engine", "batch", "f16 weights. Tokens a second: of prompts, of continuations, or of both where "
                  "nothing is shared. Ours chooses each token, the peer forms the logits alone; sequences of the peer share a "
                  "prefix in one cache by copying its sequence; transformers repeats its keys and values.")
    folder = options.model_in("float16")
    file = gguf_file(options, folder) if importlib.util.find_spec("ik_llama_cpp") else None
    if not file:
        table.note("ik_llama_cpp is not there: it is not measured")
    if chosen:
        run_cases(options, table, folder, file, chosen)
    if wants_file:
        bench_requests.batch_file(options, table, folder, file)


def run_cases(options, table, folder, file, chosen):
    ours = Engine(options, folder)
    peers = {TORCH: Server([sys.executable, LIB / "torch_batches.py", folder, "--threads", options.threads])}
    if file:
        peers[PEER] = Server([sys.executable, LIB / "llama_engine.py", file, "--threads", options.threads])
    for server in [ours.server, *peers.values()]:  # what they load would take the time of whoever is measured first
        server.ask("run 1 0 32 2 1" if server is ours.server else "1 0 32 2 0")
    found = {}
    for case in chosen:
        measured = Measured(case, options.threads)
        try:
            measured.rounds(options.step_rounds, ours, peers)
        except RuntimeError as error:  # the next ones can be measured all the same
            table.note(str(error))
            continue
        if measured.dropped:
            table.note(f"{case.name}: {measured.dropped} rounds do not count, in which somebody had fewer than {options.threads} "
                       "processors")
        if not measured.lines:
            continue
        found[case.name] = measured
        tell(table, measured, (folder / "model.safetensors").stat().st_size)
    tell_loss(table, found)
    for server in [ours.server, *peers.values()]:
        server.close()


def tell(table, measured, weight_bytes):
    case = measured.case
    for name, series in measured.peers.items():
        table.row(case.name, "tokens/s", measured.ours, series, case.bar if name == PEER else None)
    if measured.free.rates:
        price, _ = ratio_of(measured.free.rates, measured.ours.rates)
        table.hold(f"{case.name}: time over that with deterministic = false", price, PRICE_BAR, at_most=True)
    if case.whole:
        share = measured.median(lambda line: line["planning_seconds"] / (line["planning_seconds"] + line["seconds"]))
        table.hold(f"{case.name}: planning's share of the time", share, PLANNING_BAR, at_most=True)
    if case.batch == 1 and case.new:
        shares = [bytes_per_second(line["decoding"], weight_bytes) / most for line, most in zip(measured.lines, measured.bandwidths)]
        table.hold(f"{case.name}: bytes that are read a second, over those of a plain read", statistics.median(shares), BANDWIDTH_BAR)


def bytes_per_second(decoding, weight_bytes):
    return (decoding["passes"] * weight_bytes + decoding["kv_bytes"]) / decoding["seconds"]


def tell_loss(table, found):
    near, far = found.get("decode 32 behind 1024"), found.get("decode 32 behind 8000")
    if not near or not far:
        return
    table.hold("throughput lost between prefixes of 1,024 and 8,000", 1 - far.ours.median() / near.ours.median(), LOSS_BAR, at_most=True)
    if PEER in near.peers:
        table.hold(f"the same of {PEER}", 1 - far.peers[PEER].median() / near.peers[PEER].median(), 0)
