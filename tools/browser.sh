#!/usr/bin/env bash
# The browser that the tests of the console drive: Debian's Chromium, where root may install it.
set -euo pipefail
command -v chromium >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing: chromium" >&2
  apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null && exit 0
fi
echo "no chromium here; the tests of the console are skipped (as root: apt-get install chromium)" >&2
