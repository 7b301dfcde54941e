"""Kubernetes' rules that several parts of the cluster apply: amounts, scheduling, ownership. Pure."""
