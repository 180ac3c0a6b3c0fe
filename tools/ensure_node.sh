#!/usr/bin/env bash
# Finds Node 18 or newer and npm, and installs what the examples in Node depend on. Where they are
# missing it installs Debian's with apt if it may, else says how to get them and fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../examples/node"

have_node() {
    command -v npm >/dev/null &&
        node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)' 2>/dev/null
}

if ! have_node && [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    echo "setup: installing nodejs and npm with apt" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null
fi
if ! have_node; then
    cat >&2 <<'TEXT'
setup: no Node 18 (or newer) with npm found. Do one of these, then try again:
  - Debian, Ubuntu:  sudo apt-get install nodejs npm
  - any system:      install a release of Node 18 or newer, and put `node` and `npm` on PATH
TEXT
    exit 1
fi
if [[ ! node_modules/.package-lock.json -nt package-lock.json ]]; then
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    touch node_modules/.package-lock.json
fi
