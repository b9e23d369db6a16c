"""Records what an operator makes of a job: run it with that version's code on PYTHONPATH, its output is what later ones must live with.

git archive COMMIT | tar -x -C FOLDER
PYTHONPATH=FOLDER/operator:FOLDER/images/shared python tests/earlier/record.py > tests/earlier/VERSION/objects.json
"""

import json
import sys

from asyncppo_operator.plan.acceptance import accept
from asyncppo_operator.plan.lifecycle import Target
from asyncppo_operator.plan.planner import Facts, Observed, plan
from asyncppo_operator.settings import Settings

JOB = {
    "apiVersion": "asyncppo.io/v1alpha1",
    "kind": "AsyncPPOJob",
    "metadata": {"name": "guess", "namespace": "lab", "uid": "11111111-2222-3333-4444-555555555555"},
    "spec": {
        "model": {"builtin": {}},
        "environment": {"type": "GuessNumber"},
        "algorithm": {"updates": 10},
        "oldLogits": {"strategy": "Dedicated"},
        "oldLogit": {"replicas": 1, "resources": {"requests": {"cpu": 1}}},
        "rollout": {"replicas": 2, "template": {"spec": {"nodeSelector": {"disk": "fast"}}}},
    },
}

settings = Settings()
job = accept(JOB, None, settings).job
assert job is not None
made = plan(job, Target.RUN, Observed((), "the-token", Facts("policy/v1beta1")), settings)
json.dump({"job": JOB, "objects": [*made.once, *made.apply]}, sys.stdout, indent=1, sort_keys=True)
print()
