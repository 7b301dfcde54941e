"""Kubeconfig files, merged as kubectl merges them: for entries with the same name, and for the current context, the
first file takes precedence.

Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lateen.kit import yamldoc
from lateen.kit.jsons import Json

SECTIONS = {"contexts": "context", "clusters": "cluster", "users": "user"}
"""Section -> the key that holds the content of its entries."""


class ConfigError(ValueError):
    """The kubeconfig cannot be used; the message says why."""


@dataclass(frozen=True)
class Entry:
    value: Json
    path: Path
    """The file that contains it."""

    @property
    def folder(self) -> Path:
        """The directory that relative paths in it refer to."""
        return self.path.parent


@dataclass
class Config:
    paths: tuple[Path, ...]
    current: str = ""
    """Name of the current context."""
    sections: dict[str, dict[str, Entry]] = field(default_factory=lambda: {s: {} for s in SECTIONS})

    def context(self, name: str = "") -> Entry:
        """The named one, or the current one. Raises ConfigError."""
        chosen = name or self.current
        if not chosen:
            raise ConfigError(f"{self}: there is no current-context; choose one with --context")
        return self.entry("contexts", chosen)

    def entry(self, section: str, name: str) -> Entry:
        """Raises ConfigError."""
        found = self.sections[section].get(name)
        if found is None:
            known = ", ".join(self.sections[section]) or "none"
            raise ConfigError(f'{self}: there is no {SECTIONS[section]} "{name}"; there are: {known}')
        return found

    def __str__(self) -> str:
        return ", ".join(map(str, self.paths))


def of_text(text: str, name: str) -> Config:
    """Parse a configuration that is not in a file; ``name`` identifies it in messages. Raises ConfigError."""
    path = Path(name)
    out = Config((path,))
    _merge(out, path, _parsed(text, path))
    return out


def read(paths: Sequence[Path]) -> Config:
    """Read and merge files; some may be missing, as long as one exists. Raises ConfigError."""
    found = [p for p in paths if p.exists()] or list(paths[:1])
    out = Config(tuple(found))
    for path in found:
        _merge(out, path, _load(path))
    return out


def _merge(out: Config, path: Path, config: Json) -> None:
    out.current = out.current or str(config.get("current-context") or "")
    for section, inner in SECTIONS.items():
        entries = config.get(section) or []
        if not isinstance(entries, list):
            raise ConfigError(f"{path}: {section} is not a list")
        for entry in entries:
            value = entry.get(inner) or {} if isinstance(entry, dict) else None
            if not isinstance(value, dict) or not isinstance(entry.get("name"), str):
                raise ConfigError(f"{path}: an entry of {section} has no name or no {inner}")
            out.sections[section].setdefault(entry["name"], Entry(value, path))


def _load(path: Path) -> Json:
    try:
        return _parsed(path.read_text(), path)
    except OSError as e:
        raise ConfigError(f"{path}: {'no such file' if isinstance(e, FileNotFoundError) else e.strerror}") from None
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: {e}") from e


def _parsed(text: str, path: Path) -> Json:
    try:
        config = yamldoc.load(text)
    except yamldoc.YamlError as e:
        raise ConfigError(f"{path}: {e}") from e
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ConfigError(f"{path} is not a kubeconfig")
    return config
