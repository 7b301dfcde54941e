"""A Prometheus' configuration, written for Kubernetes, for one that is built without Kubernetes discovery and reads it
from another folder. Pure but for the files that it includes.

https://prometheus.io/docs/prometheus/latest/configuration/configuration/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lateen.console import discovery
from lateen.kit import yamldoc
from lateen.kit.jsons import Json

REFRESH = "5s"
DISCOVERY, BY_HTTP, INCLUDED = "kubernetes_sd_configs", "http_sd_configs", "scrape_config_files"
PASSED_ON = ("follow_redirects", "enable_http2")
"""Settings that HTTP discovery also has."""
FREE = ("labels", "external_labels", "params")
"""Mappings whose keys are the user's own."""
MOST_FILES = 100


class ConfigProblem(ValueError):
    """The configuration uses something that is not supported here."""


@dataclass(frozen=True)
class Asked:
    """A discovery that has to be answered."""

    role: str
    namespaces: list[str]
    """Only of these, if any are named."""


@dataclass
class Translated:
    config: Any
    asked: list[Asked] = field(default_factory=list)
    """By the number at the end of the URL."""
    included: list[str] = field(default_factory=list)
    """Patterns of the files that are part of it."""


def translated(config: Any, folder: Path, url: str, own_namespace: str) -> Translated:
    """With discovery by HTTP, at ``url`` followed by a number, for each Kubernetes discovery; with the scrape
    configurations of other files in it; and with absolute paths, since those that are relative start at ``folder``.
    Raises ConfigProblem, OSError and YamlError."""
    out = Translated(config)
    if isinstance(config, dict):
        out.included = _texts(config.get(INCLUDED), INCLUDED)
        found = matching(out.included, folder)
        more = {"scrape_configs": _joined(config, found)} if found else {}
        config = {k: v for k, v in config.items() if k != INCLUDED} | more
    out.config = _Translation(folder, url, own_namespace, out.asked).of(config)
    return out


def matching(patterns: list[str], folder: Path) -> list[Path]:
    """Raises ConfigProblem."""
    out: list[Path] = []
    for pattern in patterns:
        path = folder / pattern
        out += sorted(path.parent.glob(path.name))
    if len(out) > MOST_FILES:
        raise ConfigProblem(f"{INCLUDED}: more than {MOST_FILES} files")
    return out


def _joined(config: Json, files: list[Path]) -> list[Json]:
    """All scrape configurations."""
    jobs = list(_entries(config, "scrape_configs"))
    for path in files:
        theirs = yamldoc.load(path.read_text())
        if not isinstance(theirs, dict):
            raise ConfigProblem(f"{path}: expected an object with scrape_configs")
        # Paths in there start at the file's own folder.
        jobs += [_Paths(path.parent).of(job) for job in _entries(theirs, "scrape_configs")]
    return jobs


class _Paths:
    """Makes what names files absolute: ``rule_files``, ``ca_file``, ``credentials_file`` and so on, and ``files``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, config: Any) -> Any:
        if isinstance(config, list):
            return [self.of(one) for one in config]
        if not isinstance(config, dict):
            return config
        return {k: v if k in FREE else self._path(v) if _names_files(k) else self.of(v) for k, v in config.items()}

    def _path(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._path(one) for one in value]
        return str(self._folder / value) if isinstance(value, str) and value else value


class _Translation(_Paths):
    def __init__(self, folder: Path, url: str, own_namespace: str, asked: list[Asked]) -> None:
        super().__init__(folder)
        self._url, self._own, self._asked = url, own_namespace, asked

    def of(self, config: Any) -> Any:
        if not isinstance(config, dict) or DISCOVERY not in config:
            return super().of(config)
        out = super().of({k: v for k, v in config.items() if k != DISCOVERY})
        out[BY_HTTP] = [*_entries(out, BY_HTTP), *(self._by_http(one) for one in _entries(config, DISCOVERY))]
        return out

    def _by_http(self, one: Json) -> Json:
        role = one.get("role")
        if not isinstance(role, str) or role not in discovery.ROLES:
            known = ", ".join(discovery.ROLES)
            raise ConfigProblem(f'{DISCOVERY}: role "{role}" cannot be discovered here; known: {known}')
        rest = [str(k) for k, v in one.items() if k not in ("role", "namespaces", *PASSED_ON) and v]
        if "selectors" in rest:
            raise ConfigProblem(f"{DISCOVERY}: selectors cannot be used here; keep targets by relabel_configs")
        if rest:
            says = "objects are read from this cluster with the account of the pod"
            raise ConfigProblem(f"{DISCOVERY}: {', '.join(rest)} cannot be used here; {says}")
        self._asked.append(Asked(role, self._namespaces(one.get("namespaces"))))
        passed = {k: one[k] for k in PASSED_ON if k in one}
        return {"url": f"{self._url}/{len(self._asked) - 1}", "refresh_interval": REFRESH, **passed}

    def _namespaces(self, wanted: Any) -> list[str]:
        if wanted is None:
            return []
        if not isinstance(wanted, dict):
            raise ConfigProblem(f"{DISCOVERY}: namespaces: expected an object with names or own_namespace")
        own = wanted.get("own_namespace", False)
        if not isinstance(own, bool):
            raise ConfigProblem(f"{DISCOVERY}: own_namespace: expected true or false")
        return [*_texts(wanted.get("names"), f"{DISCOVERY}: names"), *([self._own] if own else [])]


def _names_files(key: Any) -> bool:
    return isinstance(key, str) and (key == "files" or key.endswith(("_file", "_files")))


def _entries(config: Json, key: str) -> Iterator[Json]:
    """Raises ConfigProblem where ``key`` is no list of objects."""
    found = config.get(key)
    if not isinstance(found, list | None) or not all(isinstance(one, dict) for one in found or []):
        raise ConfigProblem(f"{key}: expected a list of objects")
    return iter(found or [])


def _texts(found: Any, where: str) -> list[str]:
    if not isinstance(found, list | None) or not all(isinstance(one, str) for one in found or []):
        raise ConfigProblem(f"{where}: expected a list of texts")
    return list(found or [])
