#!/usr/bin/env bash
# Builds the virtual environment from the lock files: scripts/bootstrap.sh runtime|dev
#
# A stamp in the environment names what it was built from, so that a second call does nothing, and an environment that
# was left half-built, or moved, or belongs to another Python, is built anew. VENV and PYTHON name others than .venv and
# python3. Every package is checked against its hash; the project itself is installed editable, without the network.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-}
venv=${VENV:-.venv}
python=${PYTHON:-python3}
marks=$venv/.hullworks

say() { printf '%s\n' "$*"; }
fail() {
  printf 'set-up: %s\n' "$1" >&2
  shift
  if (($#)); then printf '  %s\n' "$@" >&2; fi
  exit 1
}

check_python() {
  command -v "$python" >/dev/null || fail "$python is missing." "Debian, Ubuntu: sudo apt-get install python3 python3-venv"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" -V) is too old; HullWorks needs 3.11 or newer." "Name another: make demo PYTHON=python3.12"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot build virtual environments." "Debian, Ubuntu: sudo apt-get install python3-venv"
}

fingerprint() { # of a kind: its lock, the project's own metadata, this Python, this place
  {
    cat requirements/build.lock "requirements/$1.lock" pyproject.toml scripts/bootstrap.sh
    "$python" -c 'import sys; print(sys.version, sys.executable)'
    pwd -P
    printf '%s\n' "$venv"
  } | sha256sum | cut -d' ' -f1
}

is_current() { [[ -x $venv/bin/python && -f $marks/$1 && $(<"$marks/$1") == "$(fingerprint "$1")" ]]; }

remove_unfinished() { # an environment that no earlier call has finished; never one that somebody else has made
  [[ -e $venv ]] || return 0
  [[ -d $marks ]] || fail "$venv was not made by this Makefile." "Remove it, or name another: make demo VENV=.venv-hullworks"
  if ! [[ -f $marks/place && $(<"$marks/place") == "$(place)" ]]; then
    say "set-up: $venv is unfinished, moved or of another Python: building it anew"
    rm -rf "$venv"
  fi
}

place() { "$python" -c 'import sys; print(sys.version, sys.executable)'; pwd -P; }

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

install() {
  if ! [[ -e $venv ]]; then
    mkdir -p "$marks"
    "$python" -m venv "$venv"
    place >"$marks/place.new" && mv "$marks/place.new" "$marks/place"
  fi
  rm -f "$marks/runtime" "$marks/dev"
  pip install --quiet --require-hashes --only-binary :all: --no-compile -r requirements/build.lock
  # Not compiled beforehand: Python compiles what it imports, which is a small part of these packages.
  pip install --quiet --require-hashes --no-build-isolation --use-pep517 --no-compile -r "requirements/$kind.lock"
  pip install --quiet --no-index --no-deps --no-build-isolation --no-compile --editable .
  fingerprint runtime >"$marks/runtime"
  if [[ $kind == dev ]]; then fingerprint dev >"$marks/dev"; fi
}

[[ $kind == runtime || $kind == dev ]] || fail "say runtime or dev" "scripts/bootstrap.sh runtime"
check_python
if is_current "$kind"; then exit 0; fi
# Two calls at once: the second waits, then finds the work done.
exec 9<requirements/build.lock
if command -v flock >/dev/null; then flock 9; fi
if is_current "$kind"; then exit 0; fi
start=$SECONDS
remove_unfinished
say "set-up: installing the locked Python packages into $venv (about 200 MB, a minute)"
install
say "set-up: done in $((SECONDS - start)) s"
