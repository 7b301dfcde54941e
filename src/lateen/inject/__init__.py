"""Sidecar injection: a pod in, a JSON patch out."""
