"""`kubectl asyncppo`: how a job on a cluster is, and why it is slow. Talks to the cluster through the kubectl binary alone."""
