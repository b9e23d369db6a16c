"""How far an optimizer that holds its parameters in bfloat16 gets, beside one in float32: `optimizer.precision: BFloat16` and its warning.

    python -m benchmarks.bfloat16_steps

The learner's optimizer (AdamW, its betas) takes STEPS steps on one matrix of weights of the usual spread, with the same gradients in both
precisions: a steady direction under noise of its own size. Distance: along the way that float32 went. Prints a table in Markdown.
"""

import torch

WIDTH, SPREAD, STEPS = 512, 0.02, 100
RATES = (1e-6, 2e-6, 1e-5, 1e-4, 1e-3)
BETAS = (0.9, 0.95)


def walked(rate: float, dtype: torch.dtype, start: torch.Tensor, drift: torch.Tensor) -> torch.Tensor:
    """Where the weights have come to, from where they began (float64)."""
    weights = torch.nn.Parameter(start.to(dtype, copy=True))
    optimizer = torch.optim.AdamW([weights], lr=rate, betas=BETAS, weight_decay=0.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        weights.grad = (drift + torch.randn(start.shape, generator=generator)).to(dtype)
        optimizer.step()
    return (weights.detach().double() - start.to(dtype).double()).flatten()


def main() -> None:
    """Print the table."""
    generator = torch.Generator().manual_seed(0)
    start = SPREAD * torch.randn(WIDTH, WIDTH, generator=generator)
    drift = torch.randn(WIDTH, WIDTH, generator=generator)
    print("| learning rate | weights that moved | of the distance of Float32 | cosine with it |\n|---|---|---|---|")
    for rate in RATES:
        full, half = (walked(rate, dtype, start, drift) for dtype in (torch.float32, torch.bfloat16))
        share = float(half @ full / (full @ full))
        cosine = float(half @ full / (half.norm() * full.norm()).clamp(min=1e-30))
        print(f"| {rate:.0e} | {float((half != 0).double().mean()):.1%} | {share:.0%} | {cosine:.2f} |")


if __name__ == "__main__":
    main()
