#!/usr/bin/env bash
# Looks for the programs that the whole test suite runs, and as root on Debian installs those that are missing.
#
# As an ordinary user it says which tests will be skipped; with CI=true nothing may be missing.
set -euo pipefail

# program, Debian package, what needs it
readonly wanted='pw.x quantum-espresso tests_marked_qe
sbatch slurm-wlm tests_marked_slurm
munged munge tests_marked_slurm
chromium chromium tests_marked_browser'

missing() { # lines of $wanted whose program is nowhere
  local program package purpose
  while read -r program package purpose; do
    command -v "$program" >/dev/null || [[ -x /usr/sbin/$program ]] || echo "$program $package ${purpose//_/ }"
  done <<<"$wanted"
}

lacking=$(missing)
[[ -n $lacking ]] || exit 0

if ((EUID == 0)) && command -v apt-get >/dev/null; then
  mapfile -t packages < <(cut -d' ' -f2 <<<"$lacking" | sort -u)
  echo "system packages: installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  if ! { apt-get update && apt-get install -y --no-install-recommends "${packages[@]}"; } </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "system packages: apt-get failed, see above" >&2
  fi
  lacking=$(missing)
  [[ -n $lacking ]] || exit 0
fi

echo "system packages: missing here" >&2
while read -r program package purpose; do
  echo "  $program: $purpose are skipped. Debian, Ubuntu: sudo apt-get install $package" >&2
done <<<"$lacking"
[[ ${CI:-} != true ]] || { echo "system packages: CI=true runs everything, so this is an error" >&2; exit 1; }
