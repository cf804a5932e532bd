"""Greedy continuations by `transformers`, for the golden files of generation (see make_golden.py)."""

import torch

NEW_TOKENS = 64


def greedy_golden(model, seed):
    """Tensors of greedy.safetensors: 50 prompts, their continuations, and how far apart the two best logits were."""
    prompts = random_prompts(seed, model.config.vocab_size)
    answers = [continue_greedily(model, prompt) for prompt in prompts]
    return {"prompt_lengths": torch.tensor([len(prompt) for prompt in prompts], dtype=torch.int32),
            "prompts": torch.tensor([token for prompt in prompts for token in prompt], dtype=torch.uint8),
            "tokens": torch.stack([tokens for tokens, _ in answers]).to(torch.uint8),
            "margins": torch.stack([margins for _, margins in answers])}


def random_prompts(seed, vocabulary):
    """Eight behind each of three prefixes, two of which share their beginning; prefixes themselves, and one prompt twice; short
    and longer ones that share nothing."""
    generator = torch.Generator().manual_seed(2000 + seed)
    draw = lambda count: torch.randint(0, vocabulary, (count,), generator=generator).tolist()
    first = draw(40)
    prefixes = [first, first[:24] + draw(11), draw(150)]
    prompts = [prefix + draw(1 + 3 * number) for prefix in prefixes for number in range(8)]
    prompts += [first, first[:24], prompts[0], prompts[20]]
    prompts += [draw(length) for length in (1, 1, 2, 3, *range(4, 58, 3))]
    order = torch.randperm(len(prompts), generator=generator).tolist()
    return [prompts[i] for i in order]


def continue_greedily(model, prompt):
    """(tokens [NEW_TOKENS], margins [NEW_TOKENS] f32): each prompt by itself, over the cache of `transformers`. No token ends it."""
    with torch.no_grad():
        found = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                               do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=None, pad_token_id=0,
                               output_logits=True, return_dict_in_generate=True)
    best = torch.stack(found.logits)[:, 0].topk(2).values
    tokens = found.sequences[0, len(prompt):]
    assert len(tokens) == NEW_TOKENS
    return tokens, best[:, 0] - best[:, 1]
