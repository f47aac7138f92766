#!/usr/bin/env bash
# The tests that touch RabbitMQ, on the 4.x of newer Debian releases: trixie has 4.0, sid the newest that Debian packages.
#
#   on_rabbitmq4.sh [RELEASE...]           unpacked once, into .cache/rabbitmq
#
# It ends at the first release with a failure, so that pytest's account of it is the last thing told.
# A release that cannot be had is told in one line, first; where none can be had, that line is all there is and is no failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# -gt 0 ] || set -- trixie sid

homes=()
for release in "$@"; do
  folder=$PWD/.cache/rabbitmq/$release
  if deploy/install/foreign.sh "$release" "$folder" rabbitmq-server; then
    homes+=("$(find "$folder/usr/lib/rabbitmq/lib" -maxdepth 1 -name 'rabbitmq_server-*')")
  fi
done
if [ ${#homes[@]} = 0 ]; then
  echo "Nothing was tested on RabbitMQ 4.x, for none of $* can be had here (see above)."
  exit 0
fi

# All of them on the newest; on the others what the broker's own differences show in. SNS and SQS have no part in this;
# recovery's tests of Postgres are short and come along.
everywhere=(tests/contract tests/integration/test_{topology,publish_rabbitmq}.py)
on_the_newest=(tests/integration/test_{cluster,permissions,recovery,dead_letters_collected,dead_letters_replayed}.py)
for home in "${homes[@]}"; do
  tests=("${everywhere[@]}")
  [ "$home" != "${homes[-1]}" ] || tests+=("${on_the_newest[@]}")
  echo "On ${home##*/}:"
  RABBITMQ_HOME=$home .venv/bin/python -m pytest -m 'not chaos and not foreign and not deploy' -n 3 --dist loadfile \
    -k 'not aws and not sqs and not moto and not localstack and not memory' "${tests[@]}"
done
