"""Kubernetes on one machine: API server, controllers, kubelet, runtime, network."""
