"""What the grids of experiments have in common: finished runs are not run again, and tables of means and deviations. Nothing but the standard library."""
import os
import shutil
import statistics
import subprocess
import sys
import time


class Refused(RuntimeError):
    """A run that ended with an error: the command and what it said."""


def run_once(folder, commands):
    """Runs the commands one after the other, unless `folder` holds them as done; what command k prints is in stdout-k.txt. Seconds; 0 where nothing was run."""
    text = "\n\n".join("\n".join(map(str, command)) for command in commands)
    marker = folder / "command.txt"
    if marker.exists() and marker.read_text() == text:
        return 0
    shutil.rmtree(folder, ignore_errors=True)
    begin = time.monotonic()
    for number, command in enumerate(commands):
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=dict(os.environ, GOMP_SPINCOUNT="2000"))
        if done.returncode != 0:
            raise Refused(f"{' '.join(map(str, command))}\n{done.stderr}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"stdout-{number}.txt").write_text(done.stdout)
    marker.write_text(text)
    seconds = time.monotonic() - begin
    print(f"  {folder.name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    return seconds


def spread(values, count, form):
    """Mean and standard deviation of what is there of `count` values."""
    if not values:
        return "diverged"
    text = form % statistics.mean(values) + (" ± " + form % statistics.stdev(values) if len(values) > 1 else "")
    return text if len(values) == count else f"{text} ({count - len(values)} of {count} diverged)"


def table(title, note, head, rows):
    print(f"\n### {title}\n\n{note}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for cells in rows:
        print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def spell(seeds):
    return ", ".join(str(seed) for seed in seeds) + (": mean ± standard deviation" if len(seeds) > 1 else "")
