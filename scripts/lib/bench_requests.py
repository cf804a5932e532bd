"""Rows of scripts/bench: a file of 1,000 requests with few-shot headers, as whole commands."""

import json
import os
import random
import shutil
import subprocess
import sys
import time

from bench_peers import LIB
from bench_table import Series

NAME = "file of 1,000 requests"
NEW = 16
# What one does, in words, and the answer. Each header is an instruction and sixteen answered questions of one kind.
KINDS = (("{who} has {x} {what} and gets {y} more. How many {what} does {who} have now?", lambda x, y: x + y),
         ("{who} had {x} {what} and gave {y} of them away. How many {what} are left?", lambda x, y: x - y),
         ("{who} packs {x} boxes with {y} {what} in each. How many {what} is that?", lambda x, y: x * y),
         ("{who} lays {x} {what} on {y} shelves, as many on each. How many {what} lie on each?", lambda x, y: x // y))
SHOTS = 16


def question(draw, kind):
    text, answer = KINDS[kind]
    x, y = draw.randrange(20, 100), draw.randrange(2, 20)
    who, what = draw.choice(("Tom", "Anna", "Peter", "Maria")), draw.choice(("apples", "books", "cups", "pens"))
    return f"Question: {text.format(who=who, what=what, x=x, y=y)}\nAnswer:", answer(x, y)


def write_requests(path, count):
    """In no order: nothing says which requests share a header but the headers."""
    draw = random.Random(7)
    headers = []
    for kind in range(len(KINDS)):
        shots = "".join("{} {}\n\n".format(*question(draw, kind)) for _ in range(SHOTS))
        headers.append(f"Here are questions with their answers, each of which is one number.\n\n{shots}")
    kinds = [i % len(KINDS) for i in range(count)]
    draw.shuffle(kinds)
    lines = [{"custom_id": str(i), "prompt": headers[kind] + question(draw, kind)[0], "max_tokens": NEW, "ignore_eos": True}
             for i, kind in enumerate(kinds)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def timed(command):
    """(seconds, processor seconds) of a command from its start to its end."""
    begin = time.perf_counter()
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {' '.join(map(str, command))} failed")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime, output


class Commands:
    def __init__(self, options, folder, file):
        self.options, self.folder, self.file = options, folder, file
        self.count = 100 if options.quick else 1000
        self.requests, self.run = options.work / f"requests-{self.count}.jsonl", options.work / "requests-run"
        self.answers = options.work / "requests-theirs.jsonl"
        write_requests(self.requests, self.count)

    def ours(self):
        shutil.rmtree(self.run, ignore_errors=True)
        return timed([self.options.trainer, self.options.root / "recipes/generate.toml", f"model.path={self.folder}",
                      f"generate.prompts_file={self.requests}", f"run.dir={self.run}", f"run.threads={self.options.threads}"])[:2]

    def report(self):
        return json.loads((self.run / "generate_report.json").read_text())

    def theirs(self, *words):
        """With whatever the peer says of its run."""
        *times, output = timed([sys.executable, LIB / "llama_requests.py", self.file, self.folder / "tokenizer.json", self.requests,
                                self.answers, "--threads", self.options.threads, *words])
        return times, json.loads(output)

    def equal_answers(self):
        """Of the peer's last run."""
        ours = {line["custom_id"]: line["outputs"][0]["token_ids"] for line in lines_of(self.run / "samples.jsonl")}
        return sum(ours[line["custom_id"]] == line["token_ids"] for line in lines_of(self.answers))


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def batch_file(options, table, folder, file):
    """Both the peer's sequences that share headers by hand, and one request at a time behind what the one before left: a tenth of
    the requests, from which the time of all is computed."""
    commands = Commands(options, folder, file)
    ours, by_hand, one_by_one = Series("ours"), Series("ik_llama.cpp, shared by hand"), Series("ik_llama.cpp, one by one")
    told, equal = {}, 0
    for _ in range(1 if options.quick else max(1, options.step_rounds // 2)):
        seconds, processor = commands.ours()
        ours.add(commands.count / seconds, commands.count / processor)
        if not file:
            continue
        (seconds, processor), told = commands.theirs()
        by_hand.add(commands.count / seconds, commands.count / processor)
        equal = commands.equal_answers()
        some = commands.count // 10
        (seconds, processor), part = commands.theirs("--one-by-one", "--limit", some)
        # Loading and the first request of each header are there once, whatever the number of requests.
        rest, rest_processor = (part[key] - part[f"first_{key}"] for key in ("seconds", "processor_seconds"))
        times = (commands.count - len(KINDS)) / (some - len(KINDS))
        one_by_one.add(commands.count / (seconds + (times - 1) * rest),
                       commands.count / (processor + (times - 1) * rest_processor))
    name = f"{NAME}, {NEW} new each" if commands.count == 1000 else f"{NAME}: the first {commands.count}"
    if file:
        table.row(name, "requests/s", ours, by_hand, 1.5)
        table.row(name, "requests/s", ours, one_by_one, 3.0)
    report = commands.report()
    table.note(f"{commands.count} requests of {report['tokens']['logical']} tokens; ours computes {report['tokens']['computed']} of them"
               + (f"; the tree of their prefixes holds {told['trie']}, and by hand {told['computed']} are computed; {equal} answers are "
                  "the same tokens" if told else ""))
    if told and report["tokens"]["computed"] + report["tokens"]["recomputed"] != told["trie"]:
        table.missed.append(f"{NAME}: computed tokens are not those of the tree of prefixes")
