"""The one catalogue of Prometheus metrics: names, help, labels, buckets of every part.

Learner, rollout, old-logit worker and operator take their instruments from here; docs/metrics.md, the dashboards and the alert
rules are checked against it. A program passes its own `CollectorRegistry()`; nothing touches the global one.
"""
