#!/usr/bin/env bash
# Prepare a machine: Debian's packages (where root), .venv with the locked versions. setup.sh PYTHON VENV
set -euo pipefail
python=$1
venv=$2

want=()
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
have ip || want+=(iproute2)
have iptables-restore || want+=(iptables)
have unshare || want+=(util-linux)
have curl || want+=(curl)
have slirp4netns || want+=(slirp4netns)
have kubectl || want+=(kubernetes-client)
"$python" -c 'import ensurepip' >/dev/null 2>&1 || want+=(python3-venv)
if [ ${#want[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && have apt-get; then
    echo "installing: ${want[*]}" >&2
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${want[@]}" >/dev/null ||
      echo "could not install ${want[*]}; install them by hand" >&2
  else
    echo "please install these packages (they need root): apt-get install ${want[*]}" >&2
  fi
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "Python 3.11 or newer is needed; $python is $("$python" -V 2>&1). Name another one with: make PYTHON=python3.12 …" >&2
  exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "installing Python packages into $venv" >&2
"$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
touch "$venv/.ready"
