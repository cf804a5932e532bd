"""What `transformers` and `peft` make of a model folder: losses of documents, log-probabilities, logits, greedy tokens."""

import json

import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer


class Oracle:
    """A folder's model in f32 with eager attention; `peft` names the folder of an adapter over it."""

    def __init__(self, folder, peft=None, **changes):
        config = AutoConfig.from_pretrained(folder)
        if changes:
            config = changed_config(folder, changes)
        self.model, self.loading = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
        self.model.eval()
        if peft:
            self.model = PeftModel.from_pretrained(self.model, peft).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def odd_keys(self):
        """Tensors that transformers misses, does not expect or cannot fit."""
        return [f"{kind}: {key}" for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
                for key in self.loading.get(kind) or []]

    def encode(self, text):
        return self.tokenizer(text)["input_ids"]

    @torch.no_grad()
    def logits(self, ids):
        return self.model(torch.tensor([ids])).logits[0]

    def loss(self, texts):
        """Mean over all scored tokens, each document by itself."""
        total, scored = 0.0, 0
        for text in texts:
            ids = self.encode(text)
            targets = torch.tensor(ids[1:])
            total += torch.nn.functional.cross_entropy(self.logits(ids)[:-1].double(), targets, reduction="sum").item()
            scored += len(targets)
        return total / scored

    def loss_of_token(self, prompt, token):
        """Negative log-probability of a token of the vocabulary behind the prompt."""
        last = torch.log_softmax(self.logits(self.encode(prompt))[-1].double(), dim=0)
        return -last[self.tokenizer.get_vocab()[token]].item()

    def greedy(self, prompt, count, clear):
        """The most likely continuation until a margin between the two best logits is below `clear` of the largest: its text,
        tokens, and whether all margins were clear. Ends at EOS. Nothing is cached."""
        begin = self.encode(prompt)
        ids = list(begin)
        is_clear = True
        for _ in range(count):
            last = self.logits(ids)[-1]
            best = last.topk(2)
            if (best.values[0] - best.values[1]).item() < clear * last.abs().max().item():
                is_clear = False
                break
            ids.append(best.indices[0].item())
            if ids[-1] == self.tokenizer.eos_token_id:
                break
        decode = lambda some: self.tokenizer.decode(some, skip_special_tokens=True)
        return decode(ids)[len(decode(begin)):], len(ids) - len(begin), is_clear


def load_peft_alone(folder):
    """The adapter over the base model that its own adapter_config.json names."""
    return AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def parameters_of(config):
    """Numbers that a model of this config.json holds, tied ones once. Allocates none of them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    return sum(parameter.numel() for parameter in model.parameters())


def changed_config(folder, changes):
    """The folder's configuration with other values, read as if they stood in its config.json. Lists that follow from them are
    made anew."""
    values = json.loads((folder / "config.json").read_text())
    values.pop("layer_types", None)
    return AutoConfig.for_model(**{**values, **changes})


def difference(found, expected):
    """Largest difference of two tensors of logits, in parts of the largest expected one."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def config_differences(original, exported, expected=()):
    """Keys whose values differ between two config.json, and between what AutoConfig makes of them, but for the expected ones."""
    found = []
    for kind, read in (("", read_json), (" of AutoConfig", read_by_transformers)):
        a, b = read(original), read(exported)
        found += [f"{key}{kind}: {a.get(key, 'absent')} became {b.get(key, 'absent')}" for key in sorted({*a, *b})
                  if a.get(key, "absent") != b.get(key, "absent") and key not in expected]
    return found


def read_json(folder):
    return json.loads((folder / "config.json").read_text())


def read_by_transformers(folder):
    return {key: str(value) for key, value in AutoConfig.from_pretrained(folder).to_dict().items()
            if key not in ("_name_or_path", "transformers_version")}
