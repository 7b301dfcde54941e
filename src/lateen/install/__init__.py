"""Profiles and manifests: the objects that ``lateen install`` creates."""
