"""The figures of a run, each in one shape wherever it appears: /v1/status, metrics.jsonl, summary.json, the job's status.

Owns names and units (camelCase in JSON). Does not own how they are measured (the learner) nor drawn (`picture.py`).
"""

import msgspec


class Measure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base: frozen, camelCase."""


class Reward(Measure, frozen=True, kw_only=True):
    """Mean trajectory reward over the first, last and best tenth of the updates."""

    first: float = 0.0
    last: float = 0.0
    best: float = 0.0


class Audit(Measure, frozen=True, kw_only=True):
    """What the old log-probs in use decided on audited tokens, against the exact ones (oldLogits.auditFraction).

    agree: tokens for which both mask and clip are the same. false_masks: dropped though the exact value keeps them; missed_masks: the
    reverse; false_clips and missed_clips alike. mean_error: mean |old - exact|, nats.
    """

    tokens: int = 0
    agree: int = 0
    false_masks: int = 0
    missed_masks: int = 0
    false_clips: int = 0
    missed_clips: int = 0
    mean_error: float = 0.0

    def __add__(self, other: "Audit") -> "Audit":
        """Over both parts."""
        tokens = self.tokens + other.tokens
        error = self.mean_error * self.tokens + other.mean_error * other.tokens
        return Audit(
            tokens=tokens,
            agree=self.agree + other.agree,
            false_masks=self.false_masks + other.false_masks,
            missed_masks=self.missed_masks + other.missed_masks,
            false_clips=self.false_clips + other.false_clips,
            missed_clips=self.missed_clips + other.missed_clips,
            mean_error=error / tokens if tokens else 0.0,
        )


class OldLogits(Measure, frozen=True, kw_only=True):
    """exact_coverage: fraction of sampled loss tokens whose old log-prob was verified to come from the version that sampled them.

    fallbacks: tokens whose old log-prob stands in for an exact one. unavailable: why exact values cannot be had at the moment.
    waiting: segments that wait for an old-logit worker.
    """

    strategy: str
    exact: bool
    exact_coverage: float = 0.0
    violations: int = 0
    fallbacks: int = 0
    waiting: int = 0
    unavailable: str = ""
    audit: Audit = Audit()


class Staleness(Measure, frozen=True, kw_only=True):
    """Per trained token, in versions. histogram: staleness → tokens."""

    mean: float = 0.0
    max: int = 0
    histogram: dict[int, int] = {}


class Discrepancy(Measure, frozen=True, kw_only=True):
    """Between old and behavior log-probs of trained tokens, d = old - behavior.

    k3: mean(e^d - d - 1). max_abs: max |d|. slope: least-squares slope of mean |d| against staleness (0 when exact).
    by_staleness: staleness → [tokens, mean |d|].
    """

    k3: float = 0.0
    max_abs: float = 0.0
    slope: float = 0.0
    by_staleness: dict[int, tuple[int, float]] = {}


class LedgerTokens(Measure, frozen=True, kw_only=True):
    """sampled = scored + sum(discarded) + unscored. `trained` counts scored tokens that a step consumed, `fallback` scored tokens
    whose score stands in for an exact one that could not be had."""

    sampled: int = 0
    scored: int = 0
    discarded: dict[str, int] = {}
    unscored: int = 0
    trained: int = 0
    fallback: int = 0

    @property
    def balanced(self) -> bool:
        """Whether the equation holds."""
        return self.sampled == self.scored + sum(self.discarded.values()) + self.unscored


class LedgerTotals(Measure, frozen=True, kw_only=True):
    """leased = received + expired + returned + in_flight; received = trained + sum(discarded) + waiting."""

    leased: int = 0
    returned: int = 0
    expired: int = 0
    in_flight: int = 0
    received: int = 0
    trained: int = 0
    discarded: dict[str, int] = {}
    waiting: int = 0
    undone: int = 0
    refused: dict[str, int] = {}
    tokens: LedgerTokens = LedgerTokens()

    @property
    def discarded_share(self) -> float:
        """Share of the received trajectories that was discarded; 0 before the first."""
        return sum(self.discarded.values()) / self.received if self.received else 0.0

    @property
    def commonest_discard(self) -> str:
        """The commonest reason of a discard, the first by name of several; empty without any."""
        return max(sorted(self.discarded), key=lambda reason: self.discarded[reason], default="")

    @property
    def balanced(self) -> bool:
        """Whether both equations hold, and the tokens' one."""
        return (
            self.leased == self.received + self.expired + self.returned + self.in_flight
            and self.received == self.trained + sum(self.discarded.values()) + self.waiting
            and self.tokens.balanced
        )


class Failures(Measure, frozen=True, kw_only=True):
    """Trajectories in a row, over all rollouts, that were worth nothing; `limit` (environment.failAfter) of them end the job, or twice as
    many as are under way where that is more.

    reason: the commonest reason among them. count: how many had it (and the same class of error). example: what was said of one.
    last: what was said of the newest one ever, which stays when a good one comes.
    """

    in_a_row: int = 0
    limit: int = 0
    reason: str = ""
    count: int = 0
    example: str = ""
    last: str = ""


class Learning(Measure, frozen=True, kw_only=True):
    """What there was to learn from. idle_updates: those in which every loss token's advantage was 0. zero_variance_groups: trained
    groups whose rewards were all equal."""

    updates: int = 0
    idle_updates: int = 0
    groups: int = 0
    zero_variance_groups: int = 0


class Quantiles(Measure, frozen=True, kw_only=True):
    """Seconds."""

    p50: float = 0.0
    p95: float = 0.0
    max: float = 0.0


class Syncs(Measure, frozen=True, kw_only=True):
    """Version syncs so far. pause: from Pause sent to the last acknowledgement; stall: from Pause to Resume."""

    count: int = 0
    fenced: int = 0
    pause_seconds: Quantiles = Quantiles()
    flush_seconds: Quantiles = Quantiles()
    score_seconds: Quantiles = Quantiles()
    step_seconds: Quantiles = Quantiles()
    load_seconds: Quantiles = Quantiles()
    stall_seconds: Quantiles = Quantiles()


class Throughput(Measure, frozen=True, kw_only=True):
    """Trained tokens and trajectories over wall time."""

    tokens_per_second: float = 0.0
    trajectories_per_second: float = 0.0


class MemberView(Measure, frozen=True, kw_only=True):
    """One rollout as the learner sees it. last_seen_seconds: age of its newest heartbeat."""

    name: str
    incarnation: int
    state: str
    version: int
    paused: bool = False
    running: int = 0
    outbox: int = 0
    sampled_tokens: int = 0
    last_seen_seconds: float = 0.0


class LearnerStatus(Measure, frozen=True, kw_only=True):
    """Everything GET /v1/status says (JSON). phase: Starting, Running, Suspended, Complete, Failed.

    waiting_for: what the learner is doing now: Batch, Straggler, Training, Sync, Nothing. time: seconds spent in each so far.
    notes: what people should know of this run and may not expect, one sentence each.
    """

    job: str
    phase: str
    message: str = ""
    update: int = 0
    updates: int = 0
    version: int = 0
    lineage: int = 0
    epoch: int = 0
    wall_seconds: float = 0.0
    eta_seconds: float | None = None
    waiting_for: str = "Nothing"
    batch_progress: float = 0.0
    last_reward: float = 0.0
    last_good_checkpoint: str = ""
    reward: Reward = Reward()
    old_logits: OldLogits
    staleness: Staleness = Staleness()
    discrepancy: Discrepancy = Discrepancy()
    ledger: LedgerTotals = LedgerTotals()
    syncs: Syncs = Syncs()
    throughput: Throughput = Throughput()
    members: list[MemberView] = []
    time: dict[str, float] = {}
    versions: int = 0
    failures: Failures = Failures()
    learning: Learning = Learning()
    notes: list[str] = []


class UpdateMetrics(Measure, frozen=True, kw_only=True):
    """One line of metrics.jsonl: one update. `seconds` splits the update's time as LearnerStatus.time does.

    quadrants: tokens masked by the discrepancy control and/or clipped: active, masked, clipped, maskedAndClipped.
    trajectory_staleness: staleness of a trajectory's oldest token → trajectories. staleness_in_flight + staleness_queued split each
    token's staleness: versions published between its sampling and the receipt of its trajectory, and from then to this step.

    Sums, of which the means beside them are made: measured_tokens took a forward in the step, k3_sum is over those, exact_tokens over
    all loss tokens. signal_tokens: loss tokens whose advantage was not 0. None: written by a program that did not count them.
    """

    update: int
    version: int
    at_seconds: float
    reward: float
    reward_std: float = 0.0
    groups: int = 0
    zero_variance_groups: int = 0
    trajectories: int = 0
    tokens: int = 0
    loss: float = 0.0
    gradient_norm: float = 0.0
    learning_rate: float = 0.0
    entropy: float = 0.0
    kl: float = 0.0
    staleness: Staleness = Staleness()
    trajectory_staleness: dict[int, int] = {}
    staleness_in_flight: dict[int, int] = {}
    staleness_queued: dict[int, int] = {}
    discrepancy: Discrepancy = Discrepancy()
    staleness_ratio_mean: float = 1.0
    staleness_ratio_max: float = 1.0
    clip_fraction: float = 0.0
    mask_fraction: float = 0.0
    effective_sample_size: float = 1.0
    quadrants: dict[str, int] = {}
    exact_coverage: float = 0.0
    seconds: dict[str, float] = {}
    response_length: float = 0.0
    value_loss: float = 0.0
    explained_variance: float = 0.0
    audit: Audit = Audit()
    measured_tokens: int | None = None
    k3_sum: float | None = None
    exact_tokens: int | None = None
    signal_tokens: int | None = None


class Summary(Measure, frozen=True, kw_only=True):
    """summary.json. phase: Complete, Failed, Stopped. strategy_reason: why Auto took the strategy. time: role → activity → seconds
    (a rollout's: the mean over the episodes it runs at once)."""

    job: str
    phase: str
    message: str = ""
    strategy: str
    strategy_reason: str = ""
    exact: bool
    updates: int
    versions: int
    seed: int
    reward: Reward
    old_logits: OldLogits
    staleness: Staleness
    staleness_bound: int
    discrepancy: Discrepancy
    ledger: LedgerTotals
    syncs: Syncs
    throughput: Throughput
    wall_seconds: float
    time: dict[str, dict[str, float]] = {}
    restarts: dict[str, int] = {}
    failures: Failures = Failures()
    learning: Learning = Learning()
    notes: list[str] = []
