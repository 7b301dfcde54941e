"""Profiles and manifests: what lateen install puts into a cluster."""
