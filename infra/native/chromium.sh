#!/usr/bin/env bash
# A browser for tests: Debian's Chromium, where there is none.
set -euo pipefail
command -v chromium >/dev/null && exit 0
echo "Installing Chromium …"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
