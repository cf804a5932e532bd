"""Steps of MeZO in PyTorch, timed: one process, one setting. Prints a JSON line. See scripts/bench_mezo.

A step, in inference mode, with all trained tensors changed in place and z drawn anew, tensor by tensor, from the step's seed:
    w += eps z,  loss,  w -= 2 eps z,  loss,  w += eps z,  g = difference / 2 eps,  w -= lr g z
"""

import argparse
import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM


def resident_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) * 1024


class Mezo:
    def __init__(self, model, eps, lr):
        self.model, self.eps, self.lr = model, eps, lr
        self.trained = [p for p in model.parameters() if p.requires_grad]

    def move(self, seed, scale):
        generator = torch.Generator().manual_seed(seed)
        for weights in self.trained:
            weights.add_(torch.randn(weights.shape, generator=generator), alpha=scale)

    def loss(self, ids):
        return self.model(input_ids=ids, labels=ids, use_cache=False).loss.item()

    def step(self, ids, seed):
        self.move(seed, self.eps)
        plus = self.loss(ids)
        self.move(seed, -2 * self.eps)
        minus = self.loss(ids)
        self.move(seed, self.eps)
        self.move(seed, -self.lr * (plus - minus) / (2 * self.eps))
        return (plus + minus) / 2


def load(folder, trains):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if trains == "lora":
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")).eval()
    return model


def argument_parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--trains", choices=["full", "lora"], required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    return parser


def main():
    parser = argument_parser()
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runtime = resident_bytes()
    model = load(options.folder, options.trains)
    ids = torch.randint(model.config.vocab_size, (options.rows, options.length), generator=torch.Generator().manual_seed(1))
    seconds, processor = [], []
    with torch.inference_mode():
        mezo = Mezo(model, eps=1e-3, lr=1e-7)
        for step in range(options.steps + 2):
            begin, begin_processor = time.perf_counter(), time.process_time()
            mezo.step(ids, seed=step)
            seconds.append(time.perf_counter() - begin)
            processor.append(time.process_time() - begin_processor)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds[2:], "processor_seconds": sum(processor[2:]) / options.steps,
                      "peak_bytes": peak, "runtime_bytes": runtime,
                      "trained": sum(p.numel() for p in mezo.trained)}))


if __name__ == "__main__":
    main()
