"""Bookinfo: four small services that show a mesh at work.

Each runs as ``python -m lateen.samples.bookinfo.NAME PORT VERSION``.
"""
