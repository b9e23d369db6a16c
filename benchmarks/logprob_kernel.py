"""The log-prob kernel over plain log-softmax: time and peak memory, as ratios from one run.

    python benchmarks/logprob_kernel.py [--tokens 512] [--hidden 64 576 896] [--repeats 3] [--threads 2] [--json]

Every line is one process of its own. Within it plain and kernel runs alternate; time is the least of the repeats, on the wall and
in CPU seconds of the process (the fairer one on a busy machine). Peak memory is tracked allocations: every allocation and release
that torch makes between a run's start and end, in order; the peak of their sum is what the run needs beside its inputs. The gradient
of the output embedding (vocabulary x hidden) is the result and must be handed back by either form; `peak` counts it, `beside it`
leaves it out.

forward: without gradients, as scoring does it. both: forward and backward, as training does it.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from typing import Any

FORMS = ("plain", "kernel")


def main() -> None:
    """Run every cell in its own process and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 576, 896])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cell:
        print(json.dumps(measure(**json.loads(arguments.cell))))
        return
    if not arguments.json:
        print(
            f"tokens {arguments.tokens}, vocabulary {arguments.vocabulary}, {arguments.threads} threads; kernel / plain\n"
        )
        print(
            f"{'hidden':>6} {'entropy':>7} {'pass':>7} {'wall s':>13} {'ratio':>6} {'cpu':>6} "
            f"{'peak MiB':>13} {'ratio':>6} {'beside it':>13} {'ratio':>6}"
        )
    for hidden in arguments.hidden:
        for entropy in (False, True):
            for backward in (False, True):
                cell = {
                    "tokens": arguments.tokens,
                    "vocabulary": arguments.vocabulary,
                    "hidden": hidden,
                    "entropy": entropy,
                    "backward": backward,
                    "repeats": arguments.repeats,
                    "threads": arguments.threads,
                }
                print(json.dumps(run(cell)) if arguments.json else line(run(cell)), flush=True)


def run(cell: dict[str, Any]) -> dict[str, Any]:
    """One cell in a fresh process."""
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{cell} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def line(result: dict[str, Any]) -> str:
    """A row of the table."""
    plain, kernel = result["plain"], result["kernel"]
    return (
        f"{result['hidden']:>6} {'yes' if result['entropy'] else 'no':>7} {'both' if result['backward'] else 'forward':>7} "
        f"{plain['wall']:6.2f} {kernel['wall']:6.2f} {kernel['wall'] / plain['wall']:6.2f} {kernel['cpu'] / plain['cpu']:6.2f} "
        f"{plain['peak']:6.0f} {kernel['peak']:6.0f} {kernel['peak'] / plain['peak']:6.2f} "
        f"{plain['beside']:6.0f} {kernel['beside']:6.0f} {kernel['beside'] / plain['beside']:6.2f}"
    )


def measure(
    tokens: int, vocabulary: int, hidden: int, entropy: bool, backward: bool, repeats: int, threads: int
) -> dict[str, Any]:
    """Both forms of one cell, in this process."""
    import torch

    from asyncppo_runtime.algorithm.vocabulary import token_logprobs

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    states = torch.randn(tokens, hidden, requires_grad=backward)
    weight = (torch.randn(vocabulary, hidden) * hidden**-0.5).requires_grad_(backward)
    ids = torch.randint(0, vocabulary, (tokens,))
    upstream = torch.randn(tokens)

    def once(chunked: bool) -> list[torch.Tensor]:
        with torch.set_grad_enabled(backward):
            out = token_logprobs(states, weight, ids, with_entropy=entropy, chunked=chunked)
            if not backward:
                return [out.logprobs]
            loss = (out.logprobs * upstream).sum()
            if out.entropy is not None:
                loss = loss + 0.01 * out.entropy.sum()
            return list(torch.autograd.grad(loss, [states, weight]))

    warm = [once(chunked) for chunked in (False, True)]
    for plain, kernel in zip(*warm, strict=True):
        torch.testing.assert_close(kernel, plain, rtol=1e-3, atol=1e-4)  # a fast wrong answer is no answer
    del warm, plain, kernel
    best = {form: {"wall": float("inf"), "cpu": float("inf")} for form in FORMS}
    for _ in range(repeats):
        for form in FORMS:
            wall, cpu = time.perf_counter(), time.process_time()
            once(form == "kernel")
            spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            best[form] = {name: min(best[form][name], spent[name]) for name in spent}
    gradient = weight.numel() * weight.element_size()
    for form in FORMS:
        changes = allocations(lambda chunked=form == "kernel": once(chunked))
        best[form]["peak"] = peak(changes) / 2**20
        best[form]["beside"] = peak([change for change in changes if abs(change) != gradient]) / 2**20
    return {"tokens": tokens, "hidden": hidden, "entropy": entropy, "backward": backward, **best}


def allocations(run_once: Callable[[], object]) -> list[int]:
    """Bytes of every allocation (positive) and release (negative) torch makes during the run, in order."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run_once()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


def peak(changes: list[int]) -> int:
    """The largest running sum."""
    return max(accumulate(changes, initial=0))


if __name__ == "__main__":
    main()
