#!/usr/bin/env bash
# Unpacks a program of another Debian release, with all that it needs, into a folder and makes it run from there. Nothing of
# the system is changed, nothing is started, and it needs no root.
#
#   foreign.sh RELEASE FOLDER pgbouncer          FOLDER/usr/sbin/pgbouncer
#   foreign.sh RELEASE FOLDER postgresql-17      FOLDER/usr/lib/postgresql/17/bin/postgres
#   foreign.sh RELEASE FOLDER docker-compose     FOLDER/usr/libexec/docker/cli-plugins/docker-compose
#   foreign.sh RELEASE FOLDER rabbitmq-server    FOLDER/usr/lib/rabbitmq/lib/rabbitmq_server-*, and its Erlang
#
# Packages come from the Debian repository that this machine's apt uses, and apt checks their signatures. A newer program asks
# for a newer C library than the machine's, so each starts through the loader that came with it. A folder that is ready is left
# alone. What cannot be had is told in one sentence, and the exit code is 3.
set -euo pipefail
release=$1 folder=$2 program=$3
mkdir -p "$folder"
root=$(cd "$folder" && pwd)
ready=$root/.ready
work=$root/.work
log=$work/log

cannot() { printf '%s of Debian %s cannot be had here: %s\n' "$program" "$release" "$*" >&2; exit 3; }

# The programs know the folder they were made for.
[ "$(cat "$ready" 2>/dev/null)" != "$release $program $root" ] || exit 0
for tool in apt-get apt-cache dpkg-deb; do command -v "$tool" >/dev/null || cannot "$tool is not installed."; done
find "$root" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,packages}
: >"$work/state/status"
: >"$log"

# An apt with lists, a cache and a (bare) state of its own; proxies and keys stay the machine's.
of_its_own=(
  -q -o "Dir::State=$work/state" -o "Dir::State::status=$work/state/status" -o "Dir::Cache=$work/cache"
  -o "Dir::Etc::sourcelist=$work/sources" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User= -o APT::Get::List-Cleanup=0
)

has_lists() {
  local repository keys options=
  for keys in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp}; do
    [ -e "$keys" ] && options="[signed-by=$keys] " && break
  done
  while read -r repository; do
    echo "deb $options$repository $release main" >"$work/sources"
    apt-get "${of_its_own[@]}" -o APT::Update::Error-Mode=any update >>"$log" 2>&1 && return
  done < <(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep '/debian/*$' | sort -u)
  return 1
}

# On a bare state apt names all that the program needs; what the machine has anyway (shells, users, logs) is left out.
packages() {
  apt-get "${of_its_own[@]}" -qq --no-install-recommends --print-uris install "$program" 2>>"$log" |
    awk '{ sub(/_.*/, "", $2); print $2 }' | grep -E "^($program|erlang-.*|lib.*|zlib1g.*)\$" | grep -vE '^lib(perl|pam-)'
}

# Each program moves aside for a script that starts it with the libraries it was built for.
through_its_loader() {
  local loader libraries found
  loader=$(find "$root/usr/lib" "$root/lib" -name 'ld-linux*.so.*' -path '*linux-gnu*' 2>/dev/null | head -n 1)
  [ -n "$loader" ] || return 1
  libraries=$(find "$root/usr/lib" "$root/lib" -maxdepth 1 -name '*linux-gnu*' 2>/dev/null | paste -sd:)
  find "$root/usr" -type f -perm -u+x ! -name '*.so*' | while read -r found; do
    [ "$(head -c 4 "$found" | tr -d '\0')" = $'\x7fELF' ] || continue
    mv "$found" "$found.elf"
    printf '#!/bin/sh\nexec "%s" --library-path "%s" --argv0 "$0" "%s" "$@"\n' "$loader" "$libraries" "$found.elf" >"$found"
    chmod 755 "$found"
  done
}

erl_knows_its_place() {
  local runtime
  runtime=$(find "$root/usr/lib/erlang" -maxdepth 1 -name 'erts-*' | head -n 1)
  [ -n "$runtime" ] || return 1
  cat >"$root/usr/lib/erlang/bin/erl" <<END
#!/bin/sh
export ROOTDIR="$root/usr/lib/erlang" BINDIR="$runtime/bin" EMU=beam PROGNAME=erl
exec "$runtime/bin/erlexec" "\$@"
END
  cp "$root/usr/lib/erlang/bin/erl" "$runtime/bin/erl"
}

# What the program says of itself, by which one sees that it runs.
version() {
  case $program in
    pgbouncer) "$root/usr/sbin/pgbouncer" --version ;;
    postgresql-*) "$root/usr/lib/postgresql/${program#*-}/bin/postgres" --version ;;
    docker-compose) "$root/usr/libexec/docker/cli-plugins/docker-compose" version ;;
    rabbitmq-server)
      erl_knows_its_place || return 1
      basename "$root"/usr/lib/rabbitmq/lib/rabbitmq_server-*
      "$root/usr/bin/erl" -noshell -eval 'io:format("Erlang ~s", [erlang:system_info(otp_release)]), halt().'
      ;;
    *) cannot "nobody said how to start it." ;;
  esac
}

has_lists || cannot "no Debian repository of this machine's apt offers that release."
mapfile -t wanted < <(packages)
[ ${#wanted[@]} -gt 1 ] || cannot "apt finds no such package with all that it needs."
(cd "$work/packages" && apt-get "${of_its_own[@]}" download "${wanted[@]}" >>"$log" 2>&1) || cannot "apt could not download it: $(tail -n 1 "$log")"
for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$root" >>"$log" 2>&1 || cannot "${package##*/} cannot be unpacked."; done
through_its_loader || cannot "its packages do not hold what they used to."
said=$(version 2>>"$log") || cannot "it does not run: $(tail -n 1 "$log")"
printf '%s of Debian %s is in %s: %s\n' "$program" "$release" "$folder" "$(head -n 2 <<<"$said" | paste -sd' ')" >&2
rm -rf "$work"
echo "$release $program $root" >"$ready"
