#!/usr/bin/env bash
# Makes a base for the image where no registry can be reached: a minimal Debian with Python, by debootstrap, as a tar file.
# `make deploy-check` builds on it; what you deploy is built on the base that the Dockerfile names. Root only.
#
#   base.sh TAR       exit code 3 says that this machine cannot make it
set -euo pipefail

say() { printf '%s\n' "base: $*" >&2; }

tar=$1 release=trixie
[ ! -e "$tar" ] || exit 0
command -v debootstrap >/dev/null && [ "$(id -u)" = 0 ] || { say "needs debootstrap, as root"; exit 3; }
mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^ *#' |
  grep -oE '[a-z+]+://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true)
[ -n "$mirror" ] || { say "this machine's apt names no Debian mirror"; exit 3; }

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$release" "$folder" "$mirror" \
  >"$tar.log" 2>&1 || { say "debootstrap failed, see $tar.log"; exit 3; }
rm -rf "$folder"/var/cache/apt/archives/*.deb "$folder"/var/lib/apt/lists/* "$folder/etc/apt/sources.list"
mkdir -p "$(dirname "$tar")"
tar --numeric-owner -C "$folder" -cf "$tar.part" .
mv "$tar.part" "$tar"
