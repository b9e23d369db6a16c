"""Runs the local runner with the fakes, as a process of its own: `drive.py OUTPUT SETTINGS_JSON`. Not part of the product.

Settings: updates, rollouts, backoffLimit, learner and rollout (flags of the fakes), patience, resume.
"""

import asyncio
import json
import sys
from pathlib import Path

from asyncppo.api.job import AsyncPPOJob
from asyncppo.errors import UserError
from asyncppo.local.ending import write_results
from asyncppo.local.plain import PlainView
from asyncppo.local.prepare import Request, prepared
from asyncppo.local.roles import Programs
from asyncppo.local.runner import Patience
from asyncppo.local.supervisor import Backoff
from asyncppo.wire.client import WireClient

HERE = Path(__file__).parent


async def no_coordinator(client: WireClient, learner: str, job: AsyncPPOJob) -> None:
    await asyncio.Event().wait()


def make_job(settings: dict[str, object]) -> AsyncPPOJob:
    return AsyncPPOJob.model_validate(
        {
            "apiVersion": "asyncppo.io/v1alpha1",
            "kind": "AsyncPPOJob",
            "metadata": {"name": settings.get("name", "fake")},
            "spec": {
                "model": {"builtin": {}},
                "environment": {"type": "GuessNumber"},
                "algorithm": {"updates": settings.get("updates", 20)},
                "oldLogits": {"strategy": "Interruption"},
                "rollout": {"replicas": settings.get("rollouts", 2)},
                "backoffLimit": settings.get("backoffLimit", 3),
                **settings.get("spec", {}),  # type: ignore[dict-item]
            },
        }
    )


def main() -> int:
    output, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    request = Request(
        job=make_job(settings),
        home=HERE,
        output=output,
        resume=settings.get("resume", False),
        programs=Programs(
            learner=(sys.executable, str(HERE / "fake_learner.py"), *settings.get("learner", [])),
            rollout=(sys.executable, str(HERE / "fake_rollout.py"), *settings.get("rollout", [])),
            resumption=(),  # the fakes keep no ledger that could be looked at
        ),
        patience=Patience(poll=0.05, pulse=0.2, backoff=Backoff(first=0.05), **settings.get("patience", {})),
    )
    try:
        with prepared(request, no_coordinator) as run:
            outcome = asyncio.run(run.execute(PlainView(sys.stdout, pace=0.5)))
            write_results(run.job, run.folder, outcome)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps({"phase": outcome.phase, "message": outcome.message, "words": outcome.words}), flush=True)
    return {"Complete": 0, "Failed": 2 if outcome.bad_input else 3, "Stopped": 130}[outcome.phase]


if __name__ == "__main__":
    sys.exit(main())
