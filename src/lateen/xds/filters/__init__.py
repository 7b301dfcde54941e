"""The filters of connections and requests, one file each; their order stands in ``order``."""
