"""Who takes part in scripts/bench: programs that wait for a line, measure what it says and answer with a line."""

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

LIB = Path(__file__).parent
PAUSE = 0.03  # idle threads of the one before have gone to sleep by then
NAMES = {"avx3": "AVX-512", "avx2": "AVX2", "neon": "NEON"}
# OpenBLAS 0.3.21 takes its AVX2 kernels on AMD processors that have AVX-512 unless it is told. Which of its kernels is best
# for a processor is tried, not assumed.
CORES = {"avx3": ["SkylakeX", "Cooperlake"], "avx2": ["Haswell", "Zen"], "neon": [None]}
TORCH = {"avx3": {}, "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
         "neon": {}}


def cpu_flags():
    text = Path("/proc/cpuinfo").read_text()
    return set(re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.M).group(1).split()), text


def targets_of_machine():
    """Of the names of run.target, those worth measuring."""
    flags, _ = cpu_flags()
    x86 = [name for name, needed in (("avx3", {"avx512f", "avx512bw", "avx512vl"}), ("avx2", {"avx2", "fma"})) if needed <= flags]
    return x86 or ["neon"]


class Server:
    """A program that answers each line of its input with a line of JSON."""

    def __init__(self, command, environment=None):
        self.command = [str(word) for word in command]
        self.process = subprocess.Popen(self.command, env={**os.environ, **(environment or {})}, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        atexit.register(self.process.kill)  # one that rests would outlive whoever is interrupted

    def ask(self, line):
        time.sleep(PAUSE)
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"error: {' '.join(self.command)} ended, asked for: {line}")
        self.process.send_signal(signal.SIGSTOP)  # idle threads of some libraries spin on, in the others' time
        return json.loads(answer)

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Variant:
    """A way to start a peer: what it is called, whose it is, and its environment."""

    name: str
    family: str  # the best variant of a family is what is compared with
    environment: dict = field(default_factory=dict)


def openblas_variants(target, cores=None):
    return [Variant(f"OpenBLAS {core or ''}".strip(), "OpenBLAS", {"OPENBLAS_CORETYPE": core} if core else {})
            for core in cores or CORES[target]]


def torch_variants(target, build):
    """PyTorch as installed and, where its MKL would go by the vendor, with MKL taking what the processor has."""
    found = [Variant("PyTorch as installed", "PyTorch as installed", TORCH[target])]
    if "AuthenticAMD" in cpu_flags()[1]:
        shim = intel_shim(build)
        found.append(Variant("PyTorch, MKL as on Intel", "PyTorch, MKL as on Intel", {**TORCH[target], "LD_PRELOAD": str(shim)}))
    return found


def intel_shim(build):
    library, source = Path(build) / "mkl_as_intel.so", LIB / "mkl_as_intel.c"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    return library


def mkl_kernel(variant):
    """What MKL says of itself: which instructions it takes. Empty where PyTorch has none."""
    program = "import torch; a = torch.ones(64, 64); torch.mm(a, a)"
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **variant.environment, "MKL_VERBOSE": "1"},
                          capture_output=True, text=True)
    found = re.search(r"MKL_VERBOSE (oneMKL.*?), Lnx", done.stdout)
    return re.sub(r" (Product build \d+ )?for Intel\(R\) 64 architecture", ":", found.group(1)) if found else ""
