"""The dashboard *Job*: is it learning, are its old log-probs exact, how stale is its data, where does the time go.

Owns what is shown. `python -m asyncppo.metrics.dashboards.job --write|--check` makes the chart's file.
"""

from asyncppo.api.generated import generated_file_main
from asyncppo.metrics import learner, operator, rollout
from asyncppo.metrics.dashboards.panels import Panel, Query, Row, dashboard, mean, or_zero, quantile, series, variable

PATH = "charts/asyncppo/files/dashboards/job.json"
JOB = 'asyncppo_namespace="$namespace", asyncppo_job="$job"'
WINDOW = "$__rate_interval"
GOOD_OR_BAD = ((None, "red"), (1.0, "green"))
NONE_OR_BAD = ((None, "green"), (1.0, "red"))


def _rate(metric: str, by: str = "") -> str:
    return f"sum by ({by}) (rate({metric}[{WINDOW}]))" if by else f"sum(rate({metric}[{WINDOW}]))"


OVERVIEW = Row(
    "Is it well?",
    [
        Panel(
            "Phase",
            (Query(f"{series(operator.JOB_PHASE, JOB)} == 1", "{{phase}}"),),
            kind="stat",
            width=4,
            height=4,
            mappings={"1": ""},
        ),
        Panel(
            "Progress",
            (Query(series(operator.JOB_PROGRESS, JOB)),),
            kind="stat",
            unit="percentunit",
            width=4,
            height=4,
        ),
        Panel("Policy version", (Query(series(operator.JOB_VERSION, JOB)),), kind="stat", width=4, height=4),
        Panel("Reward", (Query(series(operator.JOB_REWARD, JOB)),), kind="stat", width=4, height=4, decimals=3),
        Panel(
            "Exact coverage",
            (Query(series(operator.JOB_EXACT_COVERAGE, JOB)),),
            "Share of loss tokens whose old log-prob was verified to be of the version that sampled them.",
            kind="stat",
            unit="percentunit",
            width=4,
            height=4,
            thresholds=GOOD_OR_BAD,
        ),
        Panel(
            "Ledger",
            (Query(series(operator.JOB_LEDGER_BALANCED, JOB)),),
            "Whether every lease and every token is accounted for.",
            kind="stat",
            width=4,
            height=4,
            mappings={"0": "imbalanced", "1": "balanced"},
            thresholds=GOOD_OR_BAD,
        ),
        Panel(
            "Rollouts",
            (Query(series(operator.JOB_ROLLOUTS, JOB), "{{state}}"),),
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Conditions",
            (Query(series(operator.JOB_CONDITION, JOB), "{{condition}}"),),
            "1 True, 0 False, -1 Unknown.",
            kind="bargauge",
            width=12,
            height=8,
            minimum=-1,
            maximum=1,
        ),
        Panel(
            "Exactness violations",
            (Query(series(operator.JOB_VIOLATIONS, JOB)),),
            kind="stat",
            width=6,
            height=4,
            thresholds=NONE_OR_BAD,
        ),
    ],
)

LEARNING = Row(
    "Is it learning?",
    [
        Panel("Reward", (Query(series(learner.REWARD, JOB), "mean"), Query(series(learner.REWARD_STD, JOB), "std"))),
        Panel(
            "Entropy and reference KL",
            (Query(series(learner.ENTROPY, JOB), "entropy"), Query(series(learner.KL, JOB), "KL")),
            unit="none",
        ),
        Panel("Loss", (Query(series(learner.LOSS, JOB), "loss"),)),
        Panel("Gradient norm", (Query(series(learner.GRADIENT_NORM, JOB), "norm"),)),
        Panel("Learning rate", (Query(series(learner.LEARNING_RATE, JOB), "rate"),), unit="sci"),
        Panel(
            "Clipped, masked, effective",
            (
                Query(series(learner.CLIPPED, JOB), "clipped"),
                Query(series(learner.MASKED, JOB), "masked"),
                Query(series(learner.EFFECTIVE_SAMPLE_SIZE, JOB), "effective sample"),
            ),
            unit="percentunit",
            minimum=0,
        ),
    ],
)

STALENESS = Row(
    "How stale is what it trains on?",
    [
        Panel(
            "Staleness of trained tokens",
            (
                Query(mean(operator.JOB_STALENESS, JOB, WINDOW), "mean"),
                Query(series(operator.JOB_STALENESS_MAX, JOB), "largest ever"),
                Query(series(operator.JOB_STALENESS_BOUND, JOB), "bound"),
            ),
            "In versions. The bound is a hard guarantee.",
            minimum=0,
        ),
        Panel(
            "Where it comes from",
            (
                Query(mean(learner.TOKEN_STALENESS_IN_FLIGHT, JOB, WINDOW), "while produced"),
                Query(mean(learner.TOKEN_STALENESS_QUEUED, JOB, WINDOW), "while waiting"),
            ),
            "Means; together they are the staleness of a token.",
            minimum=0,
            stacked=True,
        ),
        Panel(
            "Staleness of trained tokens, distribution",
            (Query(f"sum by (le) (increase({series(learner.TOKEN_STALENESS, JOB, 'bucket')}[{WINDOW}]))", "{{le}}"),),
            kind="heatmap",
        ),
        Panel(
            "Oldest token of each trajectory",
            (
                Query(quantile(0.5, learner.TRAJECTORY_STALENESS, JOB, WINDOW), "p50"),
                Query(quantile(0.95, learner.TRAJECTORY_STALENESS, JOB, WINDOW), "p95"),
            ),
            minimum=0,
        ),
        Panel(
            "Version skew",
            (
                Query(series(operator.JOB_SKEW, JOB), "operator"),
                Query(series(learner.MEMBER_SKEW, JOB), "learner"),
            ),
            "Learner's version minus the oldest version of a ready rollout.",
            minimum=0,
        ),
        Panel(
            "Versions",
            (
                Query(series(learner.POLICY_VERSION, JOB), "learner"),
                Query(series(rollout.POLICY_VERSION, JOB), "{{pod}}"),
            ),
        ),
    ],
)

EXACTNESS = Row(
    "Is the correction right?",
    [
        Panel(
            "Discrepancy by staleness",
            (
                Query(
                    f"{_rate(series(learner.DISCREPANCY_ABS, JOB), 'staleness')}"
                    f" / {_rate(series(learner.DISCREPANCY_TOKENS, JOB), 'staleness')}",
                    "staleness {{staleness}}",
                ),
            ),
            "Mean |old - behavior| log-prob. With exact old log-probs it does not rise with staleness.",
            unit="sci",
            width=12,
        ),
        Panel("Slope of it", (Query(series(learner.DISCREPANCY_SLOPE, JOB), "per version"),), unit="sci", width=6),
        Panel(
            "Discrepancy",
            (
                Query(series(learner.DISCREPANCY_K3, JOB), "k3"),
                Query(series(learner.DISCREPANCY_MAX, JOB), "largest"),
            ),
            unit="sci",
            width=6,
        ),
        Panel(
            "What became of tokens",
            (Query(_rate(series(learner.QUADRANT_TOKENS, JOB), "quadrant"), "{{quadrant}}"),),
            stacked=True,
        ),
        Panel(
            "Staleness ratio",
            (
                Query(series(learner.STALENESS_RATIO, JOB), "mean"),
                Query(series(learner.STALENESS_RATIO_MAX, JOB), "largest"),
            ),
        ),
        Panel(
            "Exact coverage, fallbacks",
            (
                Query(series(learner.EXACT_COVERAGE, JOB), "coverage"),
                Query(series(learner.FALLBACKS, JOB), "tokens that fell back"),
            ),
        ),
    ],
)

TIME = Row(
    "Where does the time go?",
    [
        Panel(
            "Learner",
            (Query(_rate(series(learner.ACTIVITY, JOB), "activity"), "{{activity}}"),),
            "Share of its time. Much Batch: starved; more rollouts help.",
            unit="percentunit",
            stacked=True,
        ),
        Panel(
            "Rollouts",
            (Query(f"sum by (pod) (rate({series(rollout.PAUSED_SECONDS, JOB)}[{WINDOW}]))", "paused {{pod}}"),),
            "Share of its time a rollout is paused by version syncs.",
            unit="percentunit",
        ),
        Panel(
            "Sync phases, p95",
            (Query(quantile(0.95, operator.SYNC_SECONDS, JOB, WINDOW, "phase"), "{{phase}}"),),
            "Over the slowest rollout.",
            unit="s",
        ),
        Panel(
            "Pause and load, p95 over rollouts",
            (
                Query(quantile(0.95, rollout.PAUSE_SECONDS, JOB, WINDOW), "pause"),
                Query(quantile(0.95, rollout.LOAD_SECONDS, JOB, WINDOW), "load"),
            ),
            unit="s",
        ),
        Panel(
            "Syncs",
            (
                Query(or_zero(_rate(series(operator.SYNCS, JOB), "result")), "{{result}}"),
                Query(or_zero(_rate(series(operator.SYNC_FENCED, JOB))), "fenced rollouts"),
            ),
            unit="ops",
        ),
        Panel("Next batch", (Query(series(learner.BATCH_PROGRESS, JOB), "full"),), unit="percentunit", minimum=0),
    ],
)

THROUGHPUT = Row(
    "How much?",
    [
        Panel(
            "Tokens",
            (
                Query(_rate(series(rollout.SAMPLED_TOKENS, JOB)), "sampled"),
                Query(_rate(series(learner.TRAINED_TOKENS, JOB)), "trained"),
                Query(or_zero(_rate(series(rollout.DISCARDED_TOKENS, JOB))), "thrown away by rollouts"),
            ),
            unit="ops",
        ),
        Panel(
            "Trajectories by end",
            (Query(_rate(series(rollout.TRAJECTORIES, JOB), "end_reason"), "{{end_reason}}"),),
            unit="ops",
            stacked=True,
        ),
        Panel(
            "In the engines",
            (
                Query(series(rollout.REQUESTS, JOB), "requests {{pod}}"),
                Query(series(rollout.EPISODES, JOB), "episodes {{pod}}"),
            ),
        ),
        Panel("Outboxes", (Query(series(rollout.OUTBOX, JOB), "{{pod}}"),)),
        Panel(
            "KV cache",
            (Query(series(rollout.KV_CACHE_USAGE, JOB), "{{pod}}"),),
            unit="percentunit",
            minimum=0,
            maximum=1,
        ),
        Panel("Weights pulled", (Query(_rate(series(rollout.PULLED_BYTES, JOB)), "bytes"),), unit="Bps"),
    ],
)

LEDGER = Row(
    "Where did everything go?",
    [
        Panel("Trajectory attempts", (Query(series(learner.LEDGER_TRAJECTORIES, JOB), "{{fate}}"),)),
        Panel(
            "Discarded trajectories",
            (Query(or_zero(f"sum by (reason) ({series(learner.LEDGER_DISCARDED_TRAJECTORIES, JOB)})"), "{{reason}}"),),
        ),
        Panel(
            "Refused messages",
            (Query(or_zero(f"sum by (reason) ({series(learner.LEDGER_REFUSED, JOB)})"), "{{reason}}"),),
        ),
        Panel("Sampled tokens", (Query(series(learner.LEDGER_TOKENS, JOB), "{{fate}}"),)),
        Panel(
            "Discarded tokens",
            (Query(or_zero(f"sum by (reason) ({series(learner.LEDGER_DISCARDED_TOKENS, JOB)})"), "{{reason}}"),),
        ),
        Panel(
            "Failures of roles",
            (Query(or_zero(f"sum by (role) ({series(operator.JOB_FAILURES, JOB)})"), "{{role}}"),),
        ),
    ],
)


def text() -> str:
    """The file."""
    info = operator.JOB_INFO.name
    variables = [
        variable("namespace", "Namespace", f"label_values({info}, asyncppo_namespace)"),
        variable("job", "Job", f'label_values({info}{{asyncppo_namespace="$namespace"}}, asyncppo_job)'),
    ]
    rows = (OVERVIEW, LEARNING, STALENESS, EXACTNESS, TIME, THROUGHPUT, LEDGER)
    return dashboard("asyncppo-job", "AsyncPPO / Job", "One AsyncPPOJob.", variables, rows)


if __name__ == "__main__":
    generated_file_main(PATH, text)
