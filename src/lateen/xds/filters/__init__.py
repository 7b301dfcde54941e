"""The filters of connections and requests, one file each; ``order`` has their order."""
