#!/usr/bin/env bash
# Makes the locks from pyproject.toml and the .in files, for Python 3.11 to 3.14 at once, with the hash of every file.
# It keeps what is pinned unless UPGRADE is set, and changes nothing but deploy/install/locks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" --disable-pip-version-check install -q 'uv>=0.9'

# Usage: compile NAME ARGUMENT...; each lock starts from the pins that it has.
compile() {
  local name=$1; shift
  "$tools/venv/bin/uv" pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
    ${UPGRADE:+--upgrade} -o "deploy/install/locks/$name.lock" "$@"
  printf '%s: %s packages\n' "$name" "$(grep -c '==' "deploy/install/locks/$name.lock")"
}

locks=deploy/install/locks
compile build $locks/build.in
compile development pyproject.toml --extra embedded --extra telemetry --extra console --extra sentry --extra test --extra lint
compile demo pyproject.toml --extra embedded -c $locks/development.lock
compile runtime pyproject.toml --extra telemetry --extra console --extra sentry -c $locks/development.lock
compile fuzz pyproject.toml --extra fuzz -c $locks/development.lock
compile deploy pyproject.toml --extra deploy
compile audit $locks/audit.in
compile localstack $locks/localstack.in
compile peers pyproject.toml $locks/peers.in -c $locks/development.lock
