"""Rows of scripts/bench: what was measured of ours and of a peer, round by round, and how it is printed."""

import json
import os
import statistics
from dataclasses import dataclass, field

HEAD = ("| {} | ours | peer | theirs | ours / theirs | by processor time | load before, after |\n"
        "|---|---|---|---|---|---|---|")


def load():
    return os.getloadavg()[0]


def quartiles(values):
    """Distance between the quartiles; of two values between these."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return high - low


@dataclass
class Series:
    """One contender's rounds: what it does a second in `unit`, and the same by seconds of processor time."""

    name: str
    rates: list = field(default_factory=list)
    processor_rates: list = field(default_factory=list)
    note: str = ""

    def add(self, rate, processor_rate=None):
        self.rates.append(rate)
        if processor_rate:
            self.processor_rates.append(processor_rate)

    def median(self):
        return statistics.median(self.rates)

    def text(self):
        return f"{self.median():.4g} ± {quartiles(self.rates) / 2:.2g}"


def ratio_of(ours, theirs):
    """Median and spread of the rounds' own ratios: both were measured one behind the other."""
    ratios = [a / b for a, b in zip(ours, theirs)]
    return (statistics.median(ratios), quartiles(ratios)) if ratios else (None, None)


class Table:
    """Prints Markdown as rows come, and keeps JSON lines. A spread is the distance between the quartiles, ± half of it."""

    def __init__(self, json_path=None):
        self.json = open(json_path, "w", encoding="utf-8") if json_path else None
        self.missed, self.notes = [], []
        self.title, self.load_before = "", load()

    def section(self, title, what, text=""):
        self.flush()
        print(f"\n## {title}\n")
        if text:
            print(text + "\n")
        print(HEAD.format(what), flush=True)
        self.title, self.load_before = title, load()

    def row(self, name, unit, ours, theirs, bar=None, more=None):
        """@param bar  what ours / theirs has to be at least: 1 if there is none, and nothing at all if it is 0"""
        ratio, spread = ratio_of(ours.rates, theirs.rates)
        by_processor, processor_spread = ratio_of(ours.processor_rates, theirs.processor_rates)
        before, self.load_before = self.load_before, load()
        mark = f" (bar {bar:.3g})" if bar else ""
        processor = f"{by_processor:.3f} ± {processor_spread / 2:.2g}" if by_processor else ""
        print(f"| {name} | {ours.text()} {unit} | {theirs.name} | {theirs.text()} | **{ratio:.3f}** ± {spread / 2:.2g}{mark} |"
              f" {processor} | {before:.1f}, {self.load_before:.1f} |", flush=True)
        if ratio < (1 if bar is None else bar):
            processor = f", {by_processor:.3f} by processor time" if by_processor else ""
            self.missed.append(f"{self.title}: {name} against {theirs.name}: {ratio:.3f}{processor}"
                               + (f", bar {bar:.3g}" if bar else ""))
        self.keep({"section": self.title, "row": name, "unit": unit, "peer": theirs.name, "ours": ours.rates,
                   "theirs": theirs.rates, "ours_by_processor": ours.processor_rates,
                   "theirs_by_processor": theirs.processor_rates, "ratio": ratio, "spread": spread,
                   "ratio_by_processor": by_processor, "bar": bar, "load": [before, self.load_before], **(more or {})})

    def hold(self, what, value, bar, at_most=False):
        """A number beside its bar, below the table."""
        sign = "at most" if at_most else "at least"
        self.notes.append(f"{what}: **{value:.3f}**" + (f" (bar: {sign} {bar:g})" if bar else ""))
        if bar and (value > bar if at_most else value < bar):
            self.missed.append(f"{self.title}: {what}: {value:.3f}, bar: {sign} {bar:g}")
        self.keep({"section": self.title, "number": what, "value": value, "bar": bar})

    def note(self, text):
        """A line below the table."""
        self.notes.append(text)
        self.keep({"section": self.title, "note": text})

    def flush(self):
        if self.notes:
            print()
        for text in self.notes:
            print(f"- {text}", flush=True)
        self.notes = []

    def keep(self, line):
        if self.json:
            self.json.write(json.dumps(line) + "\n")
            self.json.flush()

    def end(self):
        """Every row that is below its bar, or slower than its peer where there is none."""
        self.flush()
        print("\n## Below the bar, or slower than the peer\n")
        print("\n".join(f"- {line}" for line in self.missed) or "none")
