"""Lateen: a service mesh with Istio's API on the real Envoy."""

import sys
from types import ModuleType

__version__ = "0.1.0"

# Envoy's matchers refer to CEL's messages, which share the package ``cel`` with an evaluator that imports its command
# line (prompt_toolkit, rich, pygments): a fifth of istiod's start and 14 MB. Nobody here wants that command.
sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))
