#!/usr/bin/env bash
# Finds strace, which bends system calls for tests of failing disks. Where there is none it installs
# Debian's with apt if it may, else says how to get one and fails.
set -euo pipefail

if command -v strace >/dev/null; then
    exit 0
fi
if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
    echo "setup: installing strace with apt" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq strace >/dev/null
    command -v strace >/dev/null && exit 0
fi
cat >&2 <<'TEXT'
setup: no strace found. Install it (Debian, Ubuntu: sudo apt-get install strace), then try again.
`make demo`, `make test-unit` and `make verify` need no strace.
TEXT
exit 1
