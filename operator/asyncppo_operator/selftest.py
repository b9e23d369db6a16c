"""`python -m asyncppo_operator.selftest URL`: what `helm test` runs. Exit 0 when the operator at URL is ready and its metrics make sense.

Owns the questions. Asks as a stranger would, over HTTP, and waits a little for an operator that has just started.
"""

import sys
import time
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_SECONDS = 60.0
ANSWER_SECONDS = 5.0


def trouble(base: str) -> str:
    """What is wrong with the operator at `base`; empty when nothing is."""
    try:
        with urllib.request.urlopen(f"{base}/readyz", timeout=ANSWER_SECONDS):
            pass
        with urllib.request.urlopen(f"{base}/metrics", timeout=ANSWER_SECONDS) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        return f"{error.url} answers {error.code}: {error.read().decode(errors='replace').strip()}"
    except OSError as error:
        return f"{base} does not answer: {error}"
    samples = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    if "asyncppo_operator_leader" not in samples:
        return "the operator's metrics lack asyncppo_operator_leader"
    if samples.get("asyncppo_operator_api_reachable") != 1:
        return "the operator does not reach the API server"
    return ""


def main(arguments: list[str]) -> int:
    """Entry point."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m asyncppo_operator.selftest URL\n")
        return 2
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found := trouble(arguments[0]):
        if time.monotonic() > deadline:
            sys.stderr.write(f"{found}\n")
            return 1
        time.sleep(1.0)
    print("the operator is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
