#!/usr/bin/env bash
# Tries HullWorks on a bare Debian 12, as a newcomer meets it. Run by hand, as root, on a machine with debootstrap.
#
#   scripts/bare_debian.sh demo            make demo twice, as an ordinary user without root
#   scripts/bare_debian.sh test            .ci/run, that is make test, as root
#   scripts/bare_debian.sh sh [COMMAND]    a shell (or one command) as the ordinary user, in its clone
#   --dirty   takes the working tree as it is, instead of the last commit
#   --keep    leaves the tried system standing and says where
#
# The system is what debootstrap calls minbase, with python3, python3-venv, make and git. It is made once, in BARE_BASE
# (default /var/tmp/hullworks-bare), and copied for each trial. Certificates of this machine and its settings for pip and
# proxies go along, for sites that need them.
set -euo pipefail
cd "$(dirname "$0")/.."

base=${BARE_BASE:-/var/tmp/hullworks-bare}
user=newcomer
dirty=false
keep=false

fail() { printf 'bare_debian: %s\n' "$*" >&2; exit 1; }

mirror() { # the Debian mirror that this machine is set to
  local address
  address=$(cat /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null |
    sed -nE 's/^URIs: *([^ ]+).*/\1/p; s/^deb +(\[[^]]*\] +)?([^ ]+) +[a-z]+ +main.*/\2/p' |
    grep -v security | head -n 1 || true)
  [[ -n $address ]] || fail "no Debian mirror in /etc/apt; set BARE_MIRROR"
  printf '%s\n' "$address"
}

make_base() {
  [[ ! -e $base/.complete ]] || return 0
  rm -rf "$base"
  debootstrap --variant=minbase --include=python3,python3-venv,make,git,ca-certificates \
    bookworm "$base" "${BARE_MIRROR:-$(mirror)}"
  chroot "$base" useradd --create-home --shell /bin/bash "$user"
  # Packages must not start their daemons in here.
  printf '#!/bin/sh\nexit 101\n' >"$base/usr/sbin/policy-rc.d"
  chmod +x "$base/usr/sbin/policy-rc.d"
  touch "$base/.complete"
}

make_trial() { # $1: folder
  cp -a --reflink=auto "$base/." "$1"
  cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
  if [[ -r /etc/ssl/certs/ca-certificates.crt ]]; then cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"; fi
  local clone=$1/home/$user/hullworks
  if $dirty; then
    mkdir "$clone"
    git ls-files --cached --others --exclude-standard -z |
      { while IFS= read -r -d '' name; do [[ -e $name || -L $name ]] && printf '%s\0' "$name"; done; } |
      tar --create --null --files-from=- | tar --extract --directory="$clone"
    git -C "$clone" init --quiet --initial-branch=main && git -C "$clone" add --all
  else
    git clone --quiet --no-hardlinks . "$clone"
  fi
  chroot "$1" chown -R "$user:$user" "/home/$user"
}

inside() { # $1: folder, $2: account, $3: command; its own mounts and processes, all gone when it ends
  local settings=() name
  for name in PIP_INDEX_URL PIP_PROXY PIP_DEFAULT_TIMEOUT http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    if [[ -n ${!name:-} ]]; then settings+=("$name=${!name}"); fi
  done
  # pip brings its own certificates; the system's, which hold the site's as well, serve all programs.
  for name in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE; do settings+=("$name=/etc/ssl/certs/ca-certificates.crt"); done
  local home=/home/$user
  [[ $2 != root ]] || home=/root
  # shellcheck disable=SC2016 # expanded by the inner shells
  unshare --mount --pid --fork bash -c '
    root=$1 account=$2 home=$3 command=$4; shift 4
    mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" && mount --rbind /dev "$root/dev" && mount -t tmpfs -o mode=1777 tmp "$root/tmp"
    chroot "$root" env -i HOME="$home" USER="$account" TERM="${TERM:-dumb}" LANG=C.UTF-8 \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" \
      setpriv --reuid="$account" --regid="$account" --init-groups bash -c "$command"
    exit $?' bare "$1" "$2" "$home" "cd /home/$user/hullworks && $3" "${settings[@]}"
}

# What a shell can see of processes without ps: everything but kernel and this pipeline.
# shellcheck disable=SC2016 # expanded by the inner shell
readonly leftovers='for p in /proc/[0-9]*; do c=$(tr "\0" " " <$p/cmdline 2>/dev/null) || true; case "$c" in ""|bash*|*chroot*|tr*) ;; *) echo "STILL RUNNING: $c";; esac; done'

demo() {
  inside "$1" "$user" "time make demo && echo && echo '== again' && time make demo && du -sh .venv && $leftovers"
}

tests() { inside "$1" root "time .ci/run"; }

main() {
  local action=
  while (($#)); do
    case $1 in
      --dirty) dirty=true ;;
      --keep) keep=true ;;
      demo | test | sh) action=$1 && shift && break ;;
      *) fail "unknown argument $1; see the head of $0" ;;
    esac
    shift
  done
  [[ -n $action ]] || fail "say demo, test or sh"
  ((EUID == 0)) || fail "debootstrap and chroot need root"
  command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
  make_base
  trial=$(mktemp -d /var/tmp/hullworks-trial.XXXXXX)
  chmod 755 "$trial"
  if $keep; then echo "bare_debian: the tried system is in $trial"; else trap 'rm -rf --one-file-system "$trial"' EXIT; fi
  make_trial "$trial"
  case $action in
    demo) demo "$trial" ;;
    test) tests "$trial" ;;
    sh) inside "$trial" "$user" "${*:-exec bash}" ;;
  esac
}

main "$@"
