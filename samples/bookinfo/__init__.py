"""Bookinfo: four small services that show a mesh at work. Each runs as ``python -m bookinfo.NAME PORT VERSION``."""
