"""A revision of the control plane, and the names of the objects that belong to it.

The names are Istio's: those of the revision ``default`` have no suffix.
https://istio.io/latest/docs/setup/upgrade/canary/
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LABEL = "istio.io/rev"
TAG_LABEL = "istio.io/tag"
COMPONENT = "operator.istio.io/component"
OWNER = "install.operator.istio.io/owning-resource-namespace"
"""Together with the revision's label, the labels by which istioctl finds the objects of a revision."""
DEFAULT = "default"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
_LONGEST = 40


def part_of(component: str, namespace: str) -> dict[str, str]:
    """The labels of objects of one of Istio's components, in an installation's namespace."""
    return {COMPONENT: component, OWNER: namespace}


def named(base: str, revision: str) -> str:
    """``istiod`` -> ``istiod-canary``."""
    return base if revision in ("", DEFAULT) else f"{base}-{revision}"


@dataclass(frozen=True)
class Revision:
    name: str = DEFAULT

    def __post_init__(self) -> None:
        """Raises ValueError for a name that cannot be part of the names of Kubernetes objects."""
        if len(self.name) > _LONGEST or not _NAME.match(self.name):
            raise ValueError(
                f'"{self.name}" is not a revision; use lower-case letters, digits and hyphens, at most {_LONGEST}: '
                "1-21-0 instead of 1.21.0"
            )

    def of(self, base: str) -> str:
        """``istiod`` -> ``istiod-canary``."""
        return named(base, self.name)

    @property
    def is_default(self) -> bool:
        return self.name == DEFAULT

    @property
    def istiod(self) -> str:
        """The name of the Service, the Deployment and the service account."""
        return self.of("istiod")

    @property
    def config_map(self) -> str:
        """The name of the ConfigMap with the mesh configuration."""
        return self.of("istio")

    @property
    def accepted_config_map(self) -> str:
        """The name of the ConfigMap with the last valid mesh configuration."""
        return self.of("istio-accepted-config")

    @property
    def injector(self) -> str:
        """The name of the MutatingWebhookConfiguration and of the ConfigMap with its settings."""
        return self.of("istio-sidecar-injector")

    @property
    def installation(self) -> str:
        """The name of the ConfigMap with the settings that the installation was made with."""
        return self.of("istio-installation")

    def validator(self, namespace: str) -> str:
        """The name of the ValidatingWebhookConfiguration."""
        return f"{self.of('istio-validator')}-{namespace}"

    def host(self, namespace: str) -> str:
        return f"{self.istiod}.{namespace}.svc"

    @property
    def label(self) -> dict[str, str]:
        return {LABEL: self.name}

    def owns(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels belongs to this revision: it names this one or none."""
        return labels.get(LABEL, self.name) == self.name
