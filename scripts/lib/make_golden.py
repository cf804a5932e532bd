"""Writes the golden files of tests/golden with transformers and peft as the independent implementation.

Everything is f32 on the CPU with eager attention and one thread, from fixed seeds, so that a second run writes the same
values. A model stored as bf16 or f16 is rounded first and then computed in f32, as Tessera does.
"""

import json
import shutil
import sys
from pathlib import Path

import peft
import torch
import transformers
from greedy_golden import greedy_golden
from random_models import randomise
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config

IGNORED = -100
VOCABULARY = 71
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MADE_BY = f"scripts/make_golden: torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}, peft {peft.__version__}"

# hidden, heads, kv heads, head dim, intermediate; what else differs from a plain untied f32 model in one file
MODELS = {
    "gqa": dict(shape=(48, 6, 2, 8, 64)),
    "mqa_tied": dict(shape=(32, 4, 1, 8, 37), tied=True),
    "mha_odd": dict(shape=(40, 5, 5, 8, 37), sharded=True),
    "wide_heads": dict(shape=(24, 3, 1, 12, 37), tied=True, eps=1e-6),
    "llama3_rope": dict(shape=(32, 2, 1, 16, 48), theta=500000.0, scaling={
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}),
    "bf16": dict(shape=(48, 4, 2, 12, 56), dtype=torch.bfloat16),
    "f16_tied": dict(shape=(32, 4, 2, 8, 40), dtype=torch.float16, tied=True),
    "biases": dict(shape=(32, 4, 2, 8, 37), attention_bias=True, mlp_bias=True),
    # Other families. Windows are shorter than the rows of 13 tokens.
    "mistral": dict(family=MistralConfig, shape=(40, 5, 5, 16, 37), sliding_window=4),
    "mistral_all": dict(family=MistralConfig, shape=(32, 4, 1, 8, 48), sliding_window=None),
    "qwen2": dict(family=Qwen2Config, shape=(48, 6, 2, 8, 64), tied=True),
    "qwen2_windows": dict(family=Qwen2Config, shape=(32, 4, 1, 8, 37), layers=3, use_sliding_window=True, sliding_window=5,
                          max_window_layers=1),
    "qwen3": dict(family=Qwen3Config, shape=(32, 4, 2, 12, 48), tied=True, sharded=True),
    "qwen3_windows": dict(family=Qwen3Config, shape=(24, 3, 3, 10, 37), layers=3, attention_bias=True, use_sliding_window=True,
                          sliding_window=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "smollm3": dict(family=SmolLM3Config, shape=(32, 4, 2, 8, 40), layers=4, tied=True, theta=2e6),
    "smollm3_list": dict(family=SmolLM3Config, shape=(24, 3, 1, 8, 37), layers=3, no_rope_layers=[0, 1, 0],
                         mlp_bias=True, use_sliding_window=True, sliding_window=4),
}
# Those whose greedy continuations are kept: each family, and layers that differ within a model.
GREEDY = ["gqa", "llama3_rope", "mistral", "qwen2", "qwen2_windows", "qwen3", "qwen3_windows", "smollm3", "smollm3_list"]
# What transformers takes where config.json has no such key, of the keys that we read.
DEFAULTS = ["num_key_value_heads", "head_dim", "max_position_embeddings", "rms_norm_eps", "initializer_range", "tie_word_embeddings",
            "attention_bias", "mlp_bias", "use_sliding_window", "sliding_window", "max_window_layers", "no_rope_layers", "layer_types"]


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    root = Path(sys.argv[1])
    for seed, (name, options) in enumerate(MODELS.items()):
        make_model(root / name, seed, **options)
    make_packed(root / "gqa", seed=100)
    make_packed(root / "mistral", seed=101)
    make_beams(root / "gqa", seed=102)
    for seed, name in enumerate(GREEDY):
        save_golden(root / name / "greedy.safetensors", greedy_golden(load_model(root / name), seed))
    make_defaults(root / "defaults.json")
    make_rope_keys(root / "rope_keys.json")
    make_lora_run(root / "lora", seed=200)
    make_full_run(root / "full_finetune", seed=300)
    make_schedule(root / "schedule.json")


# ---- models: logits, loss and gradients --------------------------------------------------------------------------

def make_model(folder, seed, dtype=torch.float32, sharded=False, **options):
    write_model(folder, random_model(seed, **options).to(dtype), sharded)
    model = load_model(folder)
    input_ids, labels = random_batch(seed, batch=2, tokens=13)
    save_golden(folder / "golden.safetensors", {"input_ids": input_ids.int(), "labels": labels.int(),
                                                **forward_and_backward(model, input_ids, labels)})


def load_model(folder):
    """Read back rather than cast, for a cast would leave the RoPE frequencies rounded to the stored type."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def random_model(seed, shape, family=LlamaConfig, layers=2, tied=False, theta=10000.0, scaling=None, eps=1e-5, **options):
    hidden, heads, kv_heads, head_dim, intermediate = shape
    config = family(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim, tie_word_embeddings=tied,
        rms_norm_eps=eps, max_position_embeddings=512, bos_token_id=1, eos_token_id=2, pad_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": theta, **(scaling or {})}, **options)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model, seed)
    return model


def random_batch(seed, batch, tokens):
    """Token ids and labels as transformers aligns them: labels[b, t] is input_ids[b, t] or IGNORED."""
    generator = torch.Generator().manual_seed(1000 + seed)
    input_ids = torch.randint(0, VOCABULARY, (batch, tokens), generator=generator)
    return input_ids, some_ignored(input_ids, generator)


def counting_batch(seed, batch, tokens):
    """Sequences that count up by 3 from a random start: something that a training run can learn."""
    generator = torch.Generator().manual_seed(1000 + seed)
    start = torch.randint(0, VOCABULARY, (batch, 1), generator=generator)
    input_ids = (start + 3 * torch.arange(tokens)) % VOCABULARY
    return input_ids, some_ignored(input_ids, generator)


def some_ignored(input_ids, generator):
    labels = input_ids.clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.25] = IGNORED
    labels[0, :4] = IGNORED
    return labels


def forward_and_backward(model, input_ids, labels):
    model.zero_grad()
    result = model(input_ids=input_ids, labels=labels)
    result.loss.backward()
    return {"logits": result.logits.detach(), "loss": result.loss.detach().reshape(1), **gradients(model)}


def gradients(model):
    return {f"grad.{name}": parameter.grad.clone() for name, parameter in model.named_parameters()}


def write_model(folder, model, sharded=False):
    """config.json and the weights. The sharded model keeps the config of transformers 5; the others get the keys of
    transformers 4, which most published folders have."""
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size="64KB" if sharded else "1GB")
    (folder / "generation_config.json").unlink()
    if not sharded:
        path = folder / "config.json"
        path.write_text(json.dumps(classic_config(json.loads(path.read_text())), indent=2) + "\n")


def classic_config(config):
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    return dict(sorted(config.items()))


def make_defaults(path):
    """For each family what its class has after a config of nothing but sizes: 8 layers, 8 heads, hidden 64."""
    defaults = {}
    for family in (LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config):
        config = family.from_dict({"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 8,
                                   "num_attention_heads": 8})
        found = {key: getattr(config, key) for key in DEFAULTS if hasattr(config, key)}
        found["rope_theta"] = config.rope_parameters["rope_theta"]
        defaults[family.model_type] = found
    path.write_text(json.dumps({"made_by": MADE_BY, **defaults}, indent=1) + "\n")


def make_rope_keys(path):
    """What transformers makes of each way to spell rotary positions: `keys` of config.json beside these sizes, `read` after."""
    numbers = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled = {"rope_type": "llama3", **numbers, "original_max_position_embeddings": 64}
    plain = {"rope_type": "default", "rope_theta": 3e5}
    spellings = [
        {}, {"rope_theta": 2e5}, {"rope_scaling": None, "rope_theta": 2e5}, {"rope_scaling": {}}, {"rope_parameters": {}},
        {"rope_parameters": {}, "rope_theta": 2e5}, {"rope_parameters": {"rope_theta": 2e5}}, {"rope_scaling": {"rope_theta": 2e5}},
        {"rope_parameters": plain}, {"rope_parameters": plain, "rope_theta": 2e5}, {"rope_scaling": plain, "rope_theta": 2e5},
        {"rope_parameters": {"rope_type": "default"}, "rope_theta": 2e5}, {"rope_scaling": {"type": "default", "rope_theta": 2e5}},
        {"rope_scaling": scaled}, {"rope_scaling": scaled, "rope_theta": 2e5}, {"rope_scaling": {**scaled, "rope_theta": 3e5}, "rope_theta": 2e5},
        {"rope_parameters": {**scaled, "rope_theta": 3e5}, "rope_theta": 2e5}, {"rope_scaling": {"type": "llama3", **numbers}},
        {"rope_parameters": {"rope_type": "llama3", **numbers, "rope_theta": 3e5}},
        {"rope_scaling": None, "rope_parameters": plain}, {"rope_scaling": {}, "rope_parameters": plain},
        {"rope_scaling": plain, "rope_parameters": {}}, {"rope_scaling": scaled, "rope_parameters": scaled},
        {"rope_scaling": plain, "rope_parameters": plain, "rope_theta": 2e5}, {"rope_parameters": {**plain, "partial_rotary_factor": 1.0}},
        # Both, and they differ.
        {"rope_scaling": scaled, "rope_parameters": plain}, {"rope_scaling": {"rope_type": "default"}, "rope_parameters": plain},
        {"rope_scaling": scaled, "rope_parameters": {**scaled, "rope_theta": 3e5}}, {"rope_scaling": plain, "rope_parameters": scaled},
    ]
    found = []
    for family in (LlamaConfig, SmolLM3Config):
        for keys in spellings:
            sizes = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
                     "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 256}
            config = family.from_dict({**sizes, **json.loads(json.dumps(keys))})
            found.append({"model_type": family.model_type, "keys": keys, "read": config.rope_parameters})
    text = ",\n".join(" " + json.dumps(entry) for entry in found)
    path.write_text(f'{{"made_by": {json.dumps(MADE_BY)}, "spellings": [\n{text}\n]}}\n')


# ---- one row of several documents --------------------------------------------------------------------------------

def make_packed(folder, seed):
    """Three documents in one row: each is run by itself, so positions restart and none sees another."""
    model = load_model(folder)
    input_ids, labels = random_batch(seed, batch=1, tokens=19)
    lengths = [7, 1, 11]
    model.zero_grad()
    logits, total, scored = [], 0.0, 0
    for ids, wanted in zip(input_ids.split(lengths, dim=1), labels.split(lengths, dim=1)):
        logits.append(model(input_ids=ids).logits)
        targets = wanted[:, 1:]
        total = total + torch.nn.functional.cross_entropy(
            logits[-1][:, :-1].flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")
        scored += (targets != IGNORED).sum().item()
    loss = total / scored
    loss.backward()
    packed = {"input_ids": input_ids.int(), "labels": labels.int(),
              "document_lengths": torch.tensor(lengths, dtype=torch.int32),
              "logits": torch.cat(logits, dim=1).detach(), "loss": loss.detach().reshape(1), **gradients(model)}
    save_golden(folder / "packed.safetensors", {f"packed.{name}": tensor for name, tensor in packed.items()})


# ---- training runs -----------------------------------------------------------------------------------------------

STEPS = 30
ADAMW = dict(lr=5e-3, betas=(0.9, 0.999), eps=1e-8)


# ---- search by beams ---------------------------------------------------------------------------------------------

def make_beams(folder, seed):
    """Hypotheses of model.generate for prompts of 3 to 12 tokens, all of a search's beams, the best first."""
    model = load_model(folder)
    generator = torch.Generator().manual_seed(1000 + seed)
    stops = [5, 17, 23, 40, 61]
    options = [(width, penalty, early, stops[:count]) for width in (2, 3, 6) for penalty in (-0.5, 0.0, 1.0, 1.7)
               for early, count in ((False, 5), (True, 3), ("never", 4))]
    cases = [beam_case(model, generator, *some) for some in options + [(5, 1.0, False, [5])]]
    (folder / "beams.json").write_text(json.dumps({"made_by": MADE_BY, "cases": cases}) + "\n")


def beam_case(model, generator, width, penalty, early, stops):
    length = int(torch.randint(3, 13, (1,), generator=generator))
    prompt = torch.randint(0, VOCABULARY, (1, length), generator=generator)
    found = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, num_beams=width, num_return_sequences=width,
                           length_penalty=penalty, early_stopping=early, max_new_tokens=20, eos_token_id=stops,
                           pad_token_id=0, return_dict_in_generate=True, output_scores=True)
    outputs = []
    for ids, score in zip(found.sequences[:, length:].tolist(), found.sequences_scores.tolist()):
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        outputs.append({"ids": ids[:end], "stops": end is not None, "score": score})
    return {"prompt": prompt[0].tolist(), "num_beams": width, "length_penalty": penalty, "early_stopping": early, "max_tokens": 20,
            "stop_ids": stops, "outputs": outputs}


def make_lora_run(folder, seed):
    model = random_model(seed, shape=(32, 4, 2, 8, 48))
    write_model(folder, model)
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, config)
    initial = adapter_tensors(adapted)
    ids, labels, losses = train(adapted, seed, weight_decay=0.0)
    adapted.save_pretrained(folder / "adapter")
    tidy_adapter(folder / "adapter")
    save_golden(folder / "golden.safetensors", {
        "input_ids": ids.int(), "labels": labels.int(), "losses": losses,
        **{f"initial.{name}": tensor for name, tensor in initial.items()},
        **{f"final.{name}": tensor for name, tensor in adapter_tensors(adapted).items()}})


def adapter_tensors(adapted):
    return {name: tensor.clone() for name, tensor in peft.get_peft_model_state_dict(adapted).items()}


def tidy_adapter(folder):
    """Drops the model card and what depends on the machine from a folder that peft saved."""
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = ".."
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_full_run(folder, seed):
    model = random_model(seed, shape=(16, 2, 1, 8, 24), tied=True)
    write_model(folder, model)
    ids, labels, losses = train(model, seed, weight_decay=0.1)
    save_golden(folder / "golden.safetensors", {
        "input_ids": ids.int(), "labels": labels.int(), "losses": losses,
        **{f"final.{name}": parameter.detach().clone() for name, parameter in model.named_parameters()}})


def train(model, seed, weight_decay):
    """STEPS steps of AdamW at a constant rate, every parameter decayed alike, gradients not clipped."""
    batches = [counting_batch(seed * 100 + step, batch=2, tokens=13) for step in range(STEPS)]
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=weight_decay, **ADAMW)
    losses = []
    for input_ids, labels in batches:
        optimizer.zero_grad()
        loss = model(input_ids=input_ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    ids, labels = (torch.stack(column) for column in zip(*batches))
    return ids, labels, torch.stack(losses)


def make_schedule(path):
    """Factors on the learning rate for step 0, 1, ...: warm-up over 5 of 20 steps, then the named decay."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    factors = {}
    for name in ("linear", "cosine", "constant_with_warmup"):
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        schedule = transformers.get_scheduler(name, optimizer, num_warmup_steps=5, num_training_steps=20)
        factors[name] = []
        for _ in range(20):
            factors[name].append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
    path.write_text(json.dumps({"made_by": MADE_BY, "warmup_steps": 5, "steps": 20, **factors}, indent=1) + "\n")


def save_golden(path, tensors):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"made_by": MADE_BY})


if __name__ == "__main__":
    main()
