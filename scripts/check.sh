#!/usr/bin/env bash
# Runs the checks of the repository and says how each ended: scripts/check.sh lint|all [pytest arguments]
#
# One failed step does not hide the next; the exit status is that of the whole.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

bin=${VENV:-.venv}/bin
declare -a summary=()
failed=0

step() { # name, command...
  local name=$1 start=$SECONDS verdict=ok
  shift
  printf '\n== %s\n' "$name"
  "$@" </dev/null || { verdict=FAILED && failed=1; }
  summary+=("$(printf '%-24s %-7s %4d s' "$name" "$verdict" $((SECONDS - start)))")
}

lint() {
  step "ruff check" "$bin/ruff" check
  step "ruff format" "$bin/ruff" format --check
  step "mypy --strict" "$bin/mypy"
  # Without its cache, which misses that an imported module has come or gone.
  step "layers" "$bin/lint-imports" --no-logo --no-cache
}

case ${1:-} in
  lint) lint ;;
  all)
    shift
    lint
    step "build wheel and sdist" "$bin/python" -m hatchling build --clean
    # A test may itself start the command line, so the programs of this environment come first.
    step "tests" env PATH="$(cd "$bin" && pwd):$PATH" "$bin/python" -P -m pytest "$@"
    ;;
  *)
    echo "usage: scripts/check.sh lint|all [pytest arguments]" >&2
    exit 2
    ;;
esac

printf '\n'
printf '%s\n' "${summary[@]}"
exit "$failed"
