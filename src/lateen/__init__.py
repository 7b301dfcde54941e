"""Lateen: a service mesh with Istio's API on the real Envoy."""

__version__ = "0.1.0"
