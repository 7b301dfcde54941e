"""What a proxy really has: Envoy's config dump, read into rows as istioctl's tables show them. Pure.

CLI and console read the same rows, so that they tell the same truth.
"""

from lateen.dump.config import ConfigDump, DumpError

__all__ = ["ConfigDump", "DumpError"]
