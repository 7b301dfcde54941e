"""A thin Kubernetes client: verbs, list and watch."""
