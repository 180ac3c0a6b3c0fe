#!/usr/bin/env bash
# Finds an etcd server (TENURE_ETCD_BINARY, then PATH). Where there is none it installs Debian's
# with apt if it may, else says how to get one and fails.
set -euo pipefail

if [[ -n ${TENURE_ETCD_BINARY:-} ]]; then
    if [[ ! -x $TENURE_ETCD_BINARY ]]; then
        echo "setup: TENURE_ETCD_BINARY=$TENURE_ETCD_BINARY is not an executable file" >&2
        exit 1
    fi
    exit 0
fi
if command -v etcd >/dev/null; then
    exit 0
fi
if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    echo "setup: installing etcd-server with apt" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # With etcdctl, by which a runbook is followed; where there is none, a test has a stand-in.
    apt-get install -y -qq etcd-server etcd-client >/dev/null
    command -v etcd >/dev/null && exit 0
fi
cat >&2 <<'TEXT'
setup: no etcd server found. Do one of these, then try again:
  - Debian, Ubuntu:  sudo apt-get install etcd-server
  - any system:      download a release of etcd (3.5.33 or 3.6.14, or newer) and put `etcd` on
                     PATH, or name it: export TENURE_ETCD_BINARY=/path/to/etcd
`make demo`, `make test-unit` and `make verify` need no etcd.
TEXT
exit 1
