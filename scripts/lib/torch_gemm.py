"""Measures products by PyTorch, one for each line of the input, as gemm_bench --serve does. See scripts/bench.

A line is a case of gemm_bench --list with "seconds". The result goes into a tensor that is there; all are f32 and contiguous.
"""

import json
import statistics
import sys
import time

import torch


def operand(transposed, rows, cols):
    return torch.rand(cols, rows).t() if transposed else torch.rand(rows, cols)


def work_of(case):
    m, n, k = case["m"], case["n"], case["k"]
    a, b, y = operand(case["a_transposed"], m, k), operand(case["b_transposed"], k, n), torch.zeros(m, n)
    if m == 1 and case["beta"] == 0:  # a product of a matrix and a vector, which is faster
        x, matrix, out = a[0].contiguous(), b.t(), y[0]
        return lambda: torch.mv(matrix, x, out=out)
    if case["beta"]:
        return lambda: torch.addmm(y, a, b, beta=case["beta"], out=y)
    return lambda: torch.mm(a, b, out=y)


def measure(work, seconds):
    """As tests/bench/harness.h: samples of at least a millisecond, behind two calls to warm up."""
    work()
    begin = time.perf_counter()
    work()
    calls = max(1, int(1e-3 / max(1e-9, time.perf_counter() - begin)))
    wall, processor = [], []
    end = time.perf_counter() + seconds
    while len(wall) < 5 or time.perf_counter() < end:
        begin, begin_processor = time.perf_counter(), time.process_time()
        for _ in range(calls):
            work()
        wall.append((time.perf_counter() - begin) / calls)
        processor.append((time.process_time() - begin_processor) / calls)
    return wall, processor


def main():
    torch.set_num_threads(int(sys.argv[1]))
    torch.set_grad_enabled(False)
    for line in sys.stdin:
        case = json.loads(line)
        wall, processor = measure(work_of(case), case["seconds"])
        print(json.dumps({"median_us": statistics.median(wall) * 1e6, "best_us": min(wall) * 1e6,
                          "processor_us": statistics.median(processor) * 1e6}), flush=True)


main()
