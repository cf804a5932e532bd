"""Models of `transformers` with drawn weights, for scripts that compare."""

import torch


def randomise(model, seed):
    """Weights of deviation 0.2, norms near 1, biases near 0: attention and logits are far from uniform, and no value is what a
    program that forgets it would take."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + noise if "norm" in name else noise)
