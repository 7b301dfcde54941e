"""A proxy's actual configuration: Envoy's config dump, turned into the rows of istioctl's tables. Pure.

CLI and console read the same rows, so that they agree.
"""

from lateen.dump.config import ConfigDump, DumpError

__all__ = ["ConfigDump", "DumpError"]
