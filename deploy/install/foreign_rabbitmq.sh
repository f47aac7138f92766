#!/usr/bin/env bash
# RabbitMQ and its Erlang from another Debian release, in a folder of their own; nothing of the system is changed.
#
#   foreign_rabbitmq.sh RELEASE FOLDER     prints the RABBITMQ_HOME that it made or found there; needs no root
#
# Packages come from the Debian repository that this machine's apt uses, and apt checks their signatures. A newer Erlang asks
# for a newer C library than the machine's, so each program starts through the loader that came with it. What cannot be had is
# told in one sentence, and the exit code is 1.
set -euo pipefail
release=$1
mkdir -p "$2"
root=$(cd "$2" && pwd)
ready=$root/.ready
work=$root/.work
log=$work/log

cannot() { printf 'RabbitMQ of Debian %s cannot be had here: %s\n' "$release" "$*" >&2; exit 1; }
home() { find "$root/usr/lib/rabbitmq/lib" -maxdepth 1 -name 'rabbitmq_server-*' | head -n 1; }

# The programs know the folder they were made for.
if [ "$(cat "$ready" 2>/dev/null)" = "$release $root" ]; then home; exit; fi
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

# On a bare state apt names all that RabbitMQ needs; what the machine has anyway (shells, users, logs) is left out.
packages() {
  apt-get "${of_its_own[@]}" -qq --no-install-recommends --print-uris install rabbitmq-server 2>>"$log" |
    awk '{ sub(/_.*/, "", $2); print $2 }' | grep -E '^(rabbitmq-server|erlang-.*|libc6|libgcc-s1|libstdc\+\+6|libssl.*|libsystemd0|libcap2|libtinfo6|libzstd1|libsctp1|zlib1g|zlib1g-.*)$'
}

# Each program moves aside for a script that starts it with the libraries it was built for.
through_its_loader() {
  local loader libraries program
  loader=$(find "$root/usr/lib" -name 'ld-linux*.so.*' | head -n 1)
  [ -n "$loader" ] || return 1
  libraries=$(dirname "$loader")
  find "$root/usr/lib/erlang" -type f -perm -u+x ! -name '*.so' | while read -r program; do
    [ "$(head -c 4 "$program" | tr -d '\0')" = $'\x7fELF' ] || continue
    mv "$program" "$program.elf"
    printf '#!/bin/sh\nexec "%s" --library-path "%s" --argv0 "$0" "%s" "$@"\n' "$loader" "$libraries" "$program.elf" >"$program"
    chmod 755 "$program"
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

has_lists || cannot "no Debian repository of this machine's apt offers that release."
mapfile -t wanted < <(packages)
[ ${#wanted[@]} -gt 5 ] || cannot "apt finds no rabbitmq-server with all that it needs."
(cd "$work/packages" && apt-get "${of_its_own[@]}" download "${wanted[@]}" >>"$log" 2>&1) || cannot "apt could not download it: $(tail -n 1 "$log")"
for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$root" >>"$log" 2>&1 || cannot "${package##*/} cannot be unpacked."; done
through_its_loader && erl_knows_its_place || cannot "its packages do not hold what they used to."
said=$("$root/usr/bin/erl" -noshell -eval 'io:format("~s", [erlang:system_info(otp_release)]), halt().' 2>>"$log") ||
  cannot "its Erlang does not run: $(tail -n 1 "$log")"
printf 'RabbitMQ of Debian %s, %s on Erlang %s, is in %s.\n' "$release" "$(basename "$(home)")" "$said" "$2" >&2
rm -rf "$work"
echo "$release $root" >"$ready"
home
