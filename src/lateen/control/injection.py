"""The settings with which istiod injects a pod: the installation's values, mesh configuration, ProxyConfigs, nodes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from lateen.api import kinds
from lateen.api import values as helm
from lateen.control.accepted import Accepted
from lateen.inject import openshift, pods
from lateen.inject import settings as injector
from lateen.kit import jsons, yamldoc
from lateen.kit.jsons import Json, dig
from lateen.kube.informer import Key
from lateen.mesh.model import Mesh
from lateen.wire.revision import Revision

log = logging.getLogger("lateen.control.injection")

KEYS = ("config", "values")
KEPT = ("injectorConfig", "injectorValues")
"""The keys of the injector's ConfigMap, and where their last valid content is kept (``accepted``)."""


class Surroundings:
    """Properties of one cluster's nodes and namespaces that affect injection."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}
        """Node -> the version of its kubelet."""
        self.namespaces: dict[str, Json] = {}
        """Namespace -> its annotations."""

    def changed(self, kind: kinds.Kind, key: Key, new: Json | None) -> None:
        match kind:
            case kinds.NODE if new is not None:
                self._nodes[key[1]] = str(dig(new, "status", "nodeInfo", "kubeletVersion", default=""))
            case kinds.NODE:
                self._nodes.pop(key[1], None)
            case kinds.NAMESPACE if new is not None:
                self.namespaces[key[1]] = dig(new, "metadata", "annotations", default={})
            case kinds.NAMESPACE:
                self.namespaces.pop(key[1], None)

    def runs(self, version: tuple[int, int]) -> bool:
        """Whether all nodes have at least this version."""
        return injector.native_nodes(list(self._nodes.values()), version)


class Injector:
    """Settings for pods. ``native`` is ENABLE_NATIVE_SIDECARS; with None (``auto``), sidecars are native if every node
    can run them."""

    def __init__(
        self,
        mesh: Callable[[], Mesh],
        mesh_config: Callable[[], str | None] = lambda: None,
        root_namespace: str = "istio-system",
        revision: Revision | None = None,
        image: str = "",
        native: bool | None = None,
        kept: Accepted | None = None,
    ) -> None:
        self._mesh, self._mesh_config, self._root = mesh, mesh_config, root_namespace
        self._revision, self._image, self._native = revision or Revision(), image, native
        self._kept = kept or Accepted(self._root, self._revision)
        self._values: Json = {}
        self._read = False
        """Whether ``_values`` come from a ConfigMap"""
        self._own, self._others = Surroundings(), dict[str, Surroundings]()
        self.problem = ""
        """The error in the ConfigMap; its last valid version stays in use."""

    def changed(self, kind: kinds.Kind, key: Key, new: Json | None) -> None:
        """Handle an informer's event."""
        match kind:
            case kinds.CONFIG_MAP if key == (self._root, self._revision.injector):
                self._configure(new)
            case kinds.CONFIG_MAP if self._kept.changed(key, new):
                if self.problem and not self._read:
                    self._fall_back()
            case _:
                self._own.changed(kind, key, new)

    def elsewhere(self, cluster: str, kind: kinds.Kind, key: Key, new: Json | None) -> None:
        """Handle an event of another cluster."""
        self._others.setdefault(cluster, Surroundings()).changed(kind, key, new)

    def _configure(self, new: Json | None) -> None:
        config, values = (dig(new, "data", key, default="") or "" for key in KEYS)
        try:
            self._values, self.problem, self._read = helm.read(config, values), "", True
        except ValueError as e:
            self.problem = str(e)
            log.error("ConfigMap %s/%s is not used: %s", self._root, self._revision.injector, e)
            if not self._read:
                self._fall_back()
            return
        if new is not None:
            self._kept.take(**{KEPT[0]: config, KEPT[1]: values})

    def _fall_back(self) -> None:
        """Fall back to what an earlier istiod used."""
        stored = self._kept.stored or {}
        if KEPT[1] not in stored:
            return
        try:
            self._values, self._read = helm.read(stored.get(KEPT[0], ""), stored[KEPT[1]]), True
        except ValueError as e:
            log.error("the last valid settings of the injector can no longer be used: %s", e)

    def settings(self, pod: Json, namespace: str, path: str = "") -> pods.Settings:
        """``path`` is that of the webhook's URL. Raises ValueError if the namespace's id ranges cannot be parsed."""
        given = pods.url_environment(path)
        around = self._others.get(given.get("ISTIO_META_CLUSTER_ID", ""), self._own)
        text = self._mesh_config()
        mesh = (yamldoc.load(text) if text else None) or {}
        out = pods.settings(
            {**self._values},
            mesh,
            revision=self._revision.name,
            native=around.runs(injector.NATIVE_SINCE) if self._native is None else self._native,
            native_supported=self._native is True or around.runs(injector.NATIVE_POSSIBLE),
            image="" if dig(self._values, "global", "hub") else self._image,
        )
        uid, gid = openshift.proxy_ids(around.namespaces.get(namespace, {}))
        out = replace(out, uid=uid, gid=gid, proxy_config=self._proxy_config(pod, namespace, mesh))
        return pods.with_cluster(out, given)

    def _proxy_config(self, pod: Json, namespace: str, mesh: Json) -> Json:
        """The mesh's ``defaultConfig``, overridden by the ProxyConfig that selects the workload."""
        out = jsons.copy(mesh.get("defaultConfig") or {})
        found = self._mesh().proxy_config(namespace, dig(pod, "metadata", "labels", default={}))
        if found is None:
            return out
        if found.spec.concurrency is not None:
            out["concurrency"] = found.spec.concurrency
        if found.spec.environment_variables:
            out["proxyMetadata"] = {**(out.get("proxyMetadata") or {}), **found.spec.environment_variables}
        if found.spec.image and found.spec.image.image_type:
            out["image"] = {"imageType": found.spec.image.image_type}
        return out
