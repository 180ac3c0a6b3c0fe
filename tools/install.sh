#!/usr/bin/env bash
# Makes the virtual environment VENV and installs Tenure into it, editable, with every extra and
# the development tools. Safe to run again: it then only installs what is missing.
#
# usage: [PYTHON=python3.12] tools/install.sh VENV
set -euo pipefail

venv=${1:?usage: tools/install.sh VENV}
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "setup: Tenure needs Python 3.11 or newer, but '$python' is" \
        "$("$python" --version 2>&1 || true). Name another: make setup PYTHON=python3.12" >&2
    exit 1
fi

if [[ ! -x $venv/bin/python ]]; then
    echo "setup: making $venv" >&2
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        echo "setup: '$python -m venv' failed; on Debian: apt-get install python3-venv" >&2
        exit 1
    fi
fi

echo "setup: installing Tenure and its tools into $venv (about a minute the first time)" >&2
# Only pip 25.1 and newer know dependency groups. `-qq` keeps errors and drops warnings.
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
"$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    --editable '.[all]' --group dev
