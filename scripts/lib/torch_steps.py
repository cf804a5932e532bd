"""Training steps by PyTorch and PEFT, which wait for a line with a number of steps. See scripts/bench.

f32, AdamW (its fused form, the fastest), every token scored, no dropout. LoRA r=8 on all linear maps, or all weights.
"""

import json
import resource
import sys
import time

import torch
from transformers import AutoModelForCausalLM

from mezo_torch import argument_parser


def load(folder, trains):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if trains == "lora":
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear"))
    return model.train()


class Trainer:
    def __init__(self, options):
        self.model = load(options.folder, options.trains)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, fused=True)
        self.ids = torch.randint(self.model.config.vocab_size, (options.rows, options.length),
                                 generator=torch.Generator().manual_seed(1))

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss.backward()
        self.optimizer.step()

    def timed(self):
        begin, begin_processor = time.perf_counter(), time.process_time()
        self.step()
        return time.perf_counter() - begin, time.process_time() - begin_processor


def main():
    options = argument_parser().parse_args()
    torch.set_num_threads(options.threads)
    trainer = Trainer(options)
    for _ in range(2):
        trainer.step()
    for line in sys.stdin:
        times = [trainer.timed() for _ in range(int(line))]
        print(json.dumps({"seconds": [wall for wall, _ in times], "processor_seconds": sum(p for _, p in times) / len(times),
                          "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                          "trained": sum(p.numel() for p in trainer.trained)}), flush=True)


main()
