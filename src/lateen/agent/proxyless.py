"""For gRPC clients and servers without a proxy: a certificate, and the bootstrap file named by GRPC_XDS_BOOTSTRAP.

Source: https://github.com/grpc/proposal/blob/master/A27-xds-global-load-balancing.md, A29 and A65 for the credentials.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lateen.agent.certificates import Certificates, write_files
from lateen.agent.istiod import Istiod
from lateen.agent.options import Options
from lateen.kit.files import write_atomic
from lateen.wire import names, ports

REFRESH = "900s"


def bootstrap(options: Options, directory: Path, known: Path) -> dict[str, Any]:
    """``directory`` has the certificate, key and root, which the library rereads periodically; ``known`` those for
    istiod, the same unless certificates are provided externally."""
    server = {
        "server_uri": f"{options.control_plane}:{ports.XDS}",
        "channel_creds": [{"type": "tls", "config": _files(known)}],
        "server_features": ["xds_v3"],
    }
    return {
        "xds_servers": [server],
        "node": {
            "id": str(options.node),
            "cluster": options.namespace,
            "metadata": {**options.metadata, "GENERATOR": "grpc"},
        },
        "certificate_providers": {
            "default": {"plugin_name": "file_watcher", "config": {**_files(directory), "refresh_interval": REFRESH}}
        },
        "server_listener_resource_name_template": f"{names.GRPC_SERVER}%s",
    }


def _files(directory: Path) -> dict[str, str]:
    return {
        "certificate_file": str(directory / "cert-chain.pem"),
        "private_key_file": str(directory / "key.pem"),
        "ca_certificate_file": str(directory / "root-cert.pem"),
    }


async def once(options: Options, path: Path) -> None:
    """Write a certificate and, next to it, the bootstrap file. Raises istiod.FAILURES."""
    directory = path.parent
    istiod = Istiod(options.control_plane, options.mark, cluster=options.cluster)
    signer = options.env.get("ISTIO_META_CERT_SIGNER", "")
    await Certificates(istiod, directory, write_files, identity=options.identity, signer=signer).get()
    write_atomic(path, json.dumps(bootstrap(options, directory, directory)))
