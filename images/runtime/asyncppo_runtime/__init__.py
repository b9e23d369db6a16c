"""The programs that train and sample: learner, rollout, old-logit. No kopf, no Kubernetes."""
