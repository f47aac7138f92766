#!/usr/bin/env bash
# Installs what `make` needs on a fresh Debian or Ubuntu, into the project's folder wherever possible.
#
#   bootstrap.sh packages EXTRAS STAMP   .venv with this package, editable, and the extras (comma-separated)
#   bootstrap.sh localstack STAMP        .venv-localstack with the SNS and SQS runtime that the tests judge against
#   bootstrap.sh peers STAMP             .venv-peers with the task libraries that the benchmark measures beside the fleet
#   bootstrap.sh system                  RabbitMQ and hledger from the distribution, without starting any service
#
# It changes the system only by apt-get, only for what is missing, and only as root or with sudo that asks no password.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "make: $*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

# Usage: apt_install "what it is for" PACKAGE...
apt_install() {
  local purpose=$1; shift
  may_install || fail "$purpose is missing. Install it and run make again: apt-get install $* (as root)."
  say "Installing $* for $purpose..."
  local log; log=$(mktemp)
  local policy=/usr/sbin/policy-rc.d made_policy=
  # Packages of servers start them by default; for the length of the installation the answer is no.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made_policy=1
  fi
  local done_well=1
  as_root apt-get update -q >"$log" 2>&1 || say "apt-get update had troubles; going on with the lists that are here."
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1 || done_well=
  [ -z "$made_policy" ] || as_root rm -f "$policy"
  if [ -z "$done_well" ]; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get install $* failed; its last lines are above."
  fi
  rm -f "$log"
}

# The newest Python that the dependencies are pinned for comes first.
find_python() {
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  fail "Python 3.11 or newer was not found. On Debian 12: apt-get install python3 python3-venv."
}

# Usage: make_venv FOLDER; keeps one that works.
make_venv() {
  local folder=$1 python version
  if "$folder/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  python=$(find_python)
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt_install "Python's venv module" "python$version-venv"
  fi
  say "Creating $folder with $("$python" --version)..."
  "$python" -m venv --clear "$folder"
}

# Usage: pip_install FOLDER CONSTRAINTS ARGUMENT...; pip is heard only when it fails.
pip_install() {
  local folder=$1 constraints=$2; shift 2
  local log; log=$(mktemp)
  local pip=("$folder/bin/python" -m pip --disable-pip-version-check --no-input install -q)
  if ! "${pip[@]}" -c "$constraints" "$@" >"$log" 2>&1; then
    say "The versions of $constraints cannot be had here; trying the newest that are allowed."
    if ! "${pip[@]}" "$@" >"$log" 2>&1; then
      grep -v '^WARNING: Location' "$log" | tail -n 20 >&2
      rm -f "$log"
      fail "pip could not install $*; its last lines are above."
    fi
  fi
  rm -f "$log"
}

packages() {
  make_venv .venv
  say "Installing the packages into .venv..."
  pip_install .venv constraints.txt -e ".[$1]"
  touch "$2"
}

localstack() {
  make_venv .venv-localstack
  say "Installing LocalStack into .venv-localstack..."
  # 4.12 is the last release that needs no account; the upper bounds are those its imports hold with.
  pip_install .venv-localstack deploy/install/constraints-localstack.txt \
    'localstack-core[runtime]==4.12.0' 'cbor2<5.8' 'pyopenssl<25' 'cryptography<46' 'service_identity<25'
  touch "$1"
}

peers() {
  make_venv .venv-peers
  say "Installing the benchmark's peers into .venv-peers..."
  pip_install .venv-peers deploy/install/constraints-peers.txt -e . dramatiq celery 'faststream[rabbit,cli]' uvloop
  if command -v npm >/dev/null; then
    mkdir -p .venv-peers/fauxqs
    # fauxqs needs Node.js 22, which comes as a package too.
    npm install --prefix .venv-peers/fauxqs --silent --no-fund --no-audit fauxqs@2.4.1 node@22 >&2 ||
      say "npm could not install fauxqs: the figure about SQS will be left out."
  else
    say "npm is not installed: the figure about SQS will be left out."
  fi
  touch "$1"
}

has_rabbitmq() {
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || [ -x "${RABBITMQ_HOME:-/nonexistent}/sbin/rabbitmq-server" ] ||
    command -v rabbitmq-server >/dev/null
}

system() {
  local missing=()
  has_rabbitmq || missing+=(rabbitmq-server)
  command -v hledger >/dev/null || missing+=(hledger)
  [ ${#missing[@]} -gt 0 ] || return 0
  apt_install "the tests" "${missing[@]}"
  # On a machine with systemd the package also asks to be started at every boot; the tests start a node of their own.
  if [[ " ${missing[*]} " == *" rabbitmq-server "* ]] && [ -d /run/systemd/system ]; then
    as_root systemctl disable --quiet rabbitmq-server || say "rabbitmq-server stays enabled for the next boot."
  fi
}

case "${1:-}" in
  packages) packages "$2" "$3" ;;
  localstack) localstack "$2" ;;
  peers) peers "$2" ;;
  system) system ;;
  *) sed -n '2,9p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
