#!/bin/sh
# Makes a virtual environment and installs this checkout into it, editable and with what the trainer needs.
#
#   tools/install.sh VENV [EXTRA...]        e.g. tools/install.sh .venv test
#
# PYTHON names the interpreter to use, TORCH_VERSION the CPU build that is tried first. Safe to run again.
set -eu

venv=$1
shift
extras=$(echo "train $*" | tr ' ' ',')
say() { printf '%s\n' "oelm-jobs: $*" >&2; }
cd "$(dirname "$0")/.."

# Python >= 3.10 that can make environments (Debian splits venv off; pyenv's shims may exist and not run).
find_python() {
    lacking=
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        lacking=${lacking:-$candidate}
    done
    if [ -n "$lacking" ]; then
        package=$("$lacking" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        say "$lacking can't make virtual environments (it has no ensurepip)"
        say "  on Debian and Ubuntu: sudo apt-get install $package"
    else
        say "no Python >= 3.10 found (looked for python3, python3.13, python3.12, python3.11, python3.10, python3.14, python)"
        say "  on Debian and Ubuntu: sudo apt-get install python3 python3-venv; or name one: make PYTHON=/path/to/python3"
    fi
    return 1
}

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    say "making the virtual environment $venv with $("$python" --version 2>&1)"
    "$python" -m venv --clear "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@"; }

install_torch() {
    if [ "$(uname -s)" != Linux ] || { command -v nvidia-smi && nvidia-smi; } >/dev/null 2>&1; then
        say "installing torch"
        pip install torch
        return
    fi
    say "installing torch, its CPU build since no NVIDIA GPU answers (about 200 MB)"
    # A CPU build that pip's own sources offer, else PyTorch's index of CPU builds, else what there is.
    pip install "torch==$TORCH_VERSION+cpu" 2>/dev/null ||
        pip install --retries 1 --timeout 20 --index-url https://download.pytorch.org/whl/cpu torch 2>/dev/null || {
        say "no CPU build can be had: installing torch as it comes (several GB)"
        pip install torch
    }
}
TORCH_VERSION=${TORCH_VERSION:-2.13.0}
"$venv/bin/python" -c 'import torch' 2>/dev/null || install_torch

say "installing oelm-jobs${1:+ and what its tests need}"
pip install --editable ".[${extras%,}]"
