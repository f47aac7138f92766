#!/usr/bin/env bash
# Installs what `make` needs on a fresh Debian or Ubuntu, into the project's folder wherever possible.
#
#   bootstrap.sh system demo|test       Python; for the tests also RabbitMQ, hledger, Prometheus and
#                                       its Alertmanager, without starting any service
#   bootstrap.sh system deploy          the above and what builds the image without Docker: buildah and debootstrap
#   bootstrap.sh system ha              those of the tests and what a Postgres that fails over needs: Patroni and etcd
#   bootstrap.sh system pages           those of the tests and the browser that looks at the console: Chromium
#   bootstrap.sh packages LOCK STAMP    .venv with the packages of a lock and this package, editable
#   bootstrap.sh localstack STAMP       .venv-localstack with the SNS and SQS runtime that the tests judge against
#   bootstrap.sh deploy STAMP           .venv-deploy with what judges deploy/: templates, manifests, Dockerfile
#   bootstrap.sh audit STAMP            .venv-audit with what tells holes and materials of a lock
#   bootstrap.sh peers STAMP            .venv-peers with the task libraries that the benchmark measures beside the fleet
#
# It changes the system only by apt-get, only for what is missing, and only as root or with sudo that asks no password.
# Packages come as deploy/install/locks pin them, by hash; what cannot be had so fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

locks=deploy/install/locks

say() { printf '%s\n' "$*" >&2; }
fail() { say "make: $*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
  command -v apt-get >/dev/null || return 1
  [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

# Prints the Python to use; nothing where there is none.
find_python() {
  local candidate
  for candidate in python3.11 python3 python3.12 python3.13 python3.14; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
}

# Prints the distribution's packages that are missing, one a line.
missing_packages() {
  local purpose=$1 python
  python=$(find_python)
  if [ -z "$python" ]; then
    printf '%s\n' python3 python3-venv
  elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
  fi
  [ "$purpose" != demo ] || return 0
  has_rabbitmq || echo rabbitmq-server
  command -v hledger >/dev/null || echo hledger
  command -v promtool >/dev/null || echo prometheus
  command -v amtool >/dev/null || echo prometheus-alertmanager
  case "$purpose" in
    pages)
      command -v chromium >/dev/null || echo chromium
      ;;
    deploy)
      command -v buildah >/dev/null || echo buildah
      command -v debootstrap >/dev/null || echo debootstrap
      ;;
    ha)
      # Patroni's own Python is the distribution's, and how it speaks to etcd is a package of its own.
      command -v patroni >/dev/null && /usr/bin/python3 -c 'import etcd' 2>/dev/null || printf '%s\n' patroni python3-etcd
      command -v etcd >/dev/null || echo etcd-server
      has_postgres || echo postgresql
      ;;
  esac
}

has_postgres() {
  local server
  for server in /usr/lib/postgresql/*/bin/postgres; do [ ! -x "$server" ] || return 0; done
  return 1
}

has_rabbitmq() {
  [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || [ -x "${RABBITMQ_HOME:-/nonexistent}/sbin/rabbitmq-server" ] ||
    command -v rabbitmq-server >/dev/null
}

# Everything that is missing is named, or installed, at once.
system() {
  local purpose=$1 missing
  mapfile -t missing < <(missing_packages "$purpose")
  [ ${#missing[@]} -gt 0 ] || return 0
  may_install || fail "missing are ${missing[*]}. Install them and run make again: apt-get install ${missing[*]} (as root)."
  apt_install "${missing[@]}"
  [ -n "$(find_python)" ] || fail "Python 3.11 to 3.14 is needed, and this distribution's python3 is another: $(python3 --version)."
}

# What systemd would start at the next boot, one link a line.
enabled_units() { find /etc/systemd/system -type l 2>/dev/null | sort; }

apt_install() {
  say "Installing $*..."
  local log policy=/usr/sbin/policy-rc.d made_policy= done_well=1 before link
  log=$(mktemp)
  # Packages of servers start them by default; for the length of the installation the answer is no.
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made_policy=1
  fi
  before=$(enabled_units)
  as_root apt-get update -q >"$log" 2>&1 || say "apt-get update had troubles; going on with the lists that are here."
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
    apt-get install -y -q --no-install-recommends "$@" >>"$log" 2>&1 || done_well=
  [ -z "$made_policy" ] || as_root rm -f "$policy"
  # Nor shall they start at the next boot: RabbitMQ, and Erlang's epmd, which would listen on every address.
  while read -r link; do
    [ -z "$link" ] || as_root rm -f "$link"
  done < <(comm -13 <(printf '%s\n' "$before") <(enabled_units))
  if [ -z "$done_well" ]; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get install $* failed; its last lines are above."
  fi
  rm -f "$log"
}

# Usage: make_venv FOLDER; keeps one that works.
make_venv() {
  local folder=$1 python
  if "$folder/bin/python" -m pip --version >/dev/null 2>&1; then return; fi
  python=$(find_python)
  [ -n "$python" ] || fail "Python 3.11 to 3.14 was not found."
  say "Creating $folder with $("$python" --version)..."
  "$python" -m venv --clear "$folder"
}

# Usage: pip_install FOLDER ARGUMENT...; pip is heard only when it fails.
pip_install() {
  local folder=$1; shift
  local log; log=$(mktemp)
  if ! "$folder/bin/python" -m pip --disable-pip-version-check --no-input install -q "$@" >"$log" 2>&1; then
    grep -v '^WARNING: Location' "$log" | tail -n 20 >&2
    rm -f "$log"
    fail "pip could not install $*; its last lines are above."
  fi
  rm -f "$log"
}

# Usage: install_locked FOLDER LOCK; what comes as source is built by what build.lock pins.
install_locked() {
  make_venv "$1"
  say "Installing the packages of $2.lock into $1..."
  pip_install "$1" --require-hashes --only-binary :all: -r "$locks/build.lock"
  pip_install "$1" --require-hashes --no-build-isolation -r "$locks/$2.lock"
}

packages() {
  install_locked .venv "$1"
  pip_install .venv --no-deps --no-build-isolation -e .
  touch "$2"
}

localstack() {
  install_locked .venv-localstack localstack
  touch "$1"
}

deploy() {
  install_locked .venv-deploy deploy
  touch "$1"
}

audit() {
  install_locked .venv-audit audit
  touch "$1"
}

peers() {
  install_locked .venv-peers peers
  pip_install .venv-peers --no-deps --no-build-isolation -e .
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

case "${1:-}" in
  packages) packages "$2" "$3" ;;
  localstack) localstack "$2" ;;
  deploy) deploy "$2" ;;
  audit) audit "$2" ;;
  peers) peers "$2" ;;
  system) system "$2" ;;
  *) sed -n '2,16p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
