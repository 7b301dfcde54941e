"""Print the exact versions of everything in this environment, for requirements.lock."""

from importlib.metadata import distributions

SKIP = {"lateen", "pip", "setuptools", "wheel"}
found = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in distributions()}
print("# Exact versions of the environment; written by: make lock")
for name in sorted(n for n in found if n not in SKIP):
    print(f"{name}=={found[name]}")
