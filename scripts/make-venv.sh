#!/bin/sh
# Make .venv (when it is missing) and install Holdfast into it with exact versions.
# usage: scripts/make-venv.sh PYTHON VENV
set -eu
wanted=$1
venv=$2
say() { printf '%s\n' "$*" >&2; }
new_enough() { command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=
for candidate in "$wanted" python3.13 python3.12 python3.11 python3.14; do
  if new_enough "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  say "Holdfast needs Python 3.11 or newer; '$wanted' is not."
  say "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11"
  exit 1
fi

# A virtual environment needs pip, which Debian and Ubuntu package apart (python3-venv); a system
# pip or virtualenv will do as well.
if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  say "making $venv with $("$python" --version)"
  rm -rf "$venv"
  if "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 && "$python" -m venv "$venv" >/dev/null; then
    :
  elif "$python" -m virtualenv --version >/dev/null 2>&1; then
    rm -rf "$venv"
    "$python" -m virtualenv -q "$venv"
  elif "$python" -m pip --version >/dev/null 2>&1 && "$python" -m venv --without-pip "$venv"; then
    "$python" -m pip --python "$venv/bin/python" install -q --disable-pip-version-check pip
  else
    rm -rf "$venv"
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    say "'$python' cannot make a virtual environment: its venv or pip module is missing."
    say "Install it and run make again (Debian, Ubuntu: apt install python3-venv, or python$version-venv)."
    exit 1
  fi
fi

# The pinned pip first: older ones cannot constrain what builds use.
quiet="-q --disable-pip-version-check --no-input"
say "installing dependencies (a minute the first time)"
"$venv/bin/python" -m pip install $quiet --constraint constraints.txt pip setuptools
# PYTHONWARNINGS: an editable install warns that folders beside it may be mistaken for the package; ours are links to it.
PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install $quiet --constraint constraints.txt \
  --build-constraint constraints.txt \
  --editable '.[dev]'
