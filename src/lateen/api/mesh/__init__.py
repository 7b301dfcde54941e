"""Istio's MeshConfig: its types, decoding, and which of its fields have an effect."""

from lateen.api.mesh.config import Lateen, MeshConfig
from lateen.api.mesh.providers import ExtAuthzGrpc, ExtAuthzHttp, ExtensionProvider, RequestBody
from lateen.api.mesh.proxy import ProxyConfig

__all__ = ["ExtAuthzGrpc", "ExtAuthzHttp", "ExtensionProvider", "Lateen", "MeshConfig", "ProxyConfig", "RequestBody"]
