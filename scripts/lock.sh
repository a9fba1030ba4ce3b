#!/usr/bin/env bash
# Writes requirements/*.lock from pyproject.toml: scripts/lock.sh [--upgrade]
#
# Versions that are locked stay as they are unless pyproject.toml forbids them; --upgrade takes the newest of all.
# The locks hold versions and hashes alone, no address of a registry.
set -euo pipefail
cd "$(dirname "$0")/.."

tool=.venv-lock
[[ -x $tool/bin/uv ]] || { "${PYTHON:-python3}" -m venv "$tool" && "$tool/bin/python" -m pip install --quiet uv; }

compile() {
  local output=requirements/$1.lock
  shift
  "$tool/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --custom-compile-command "make lock" --output-file "$output" "$@" >/dev/null
}

# The development lock is solved first and binds the others, so that one environment serves all.
compile dev pyproject.toml --extra embedded --extra fast --extra dask --group dev "$@"
compile runtime pyproject.toml --extra embedded --constraint requirements/dev.lock
compile build --group build --constraint requirements/dev.lock
if grep -l '://' requirements/*.lock; then
  echo "lock: an address got into the lock files above" >&2
  exit 1
fi
