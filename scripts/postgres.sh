#!/bin/sh
# Install Debian's (Ubuntu's) PostgreSQL for the tests and drills that need a real one; they start their own
# servers from it. Does nothing when it is there; says so when it cannot be had.
set -eu
say() { printf '%s\n' "$*" >&2; }

for server in /usr/lib/postgresql/*/bin/postgres; do
  if [ -x "$server" ]; then exit 0; fi
done
if command -v postgres >/dev/null 2>&1 && command -v initdb >/dev/null 2>&1; then exit 0; fi
if ! command -v apt-get >/dev/null 2>&1; then
  say "no PostgreSQL here, and no apt-get: put its initdb and postgres on the PATH, or do without its tests"
  exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
  say "no PostgreSQL here: run scripts/postgres.sh as root (sudo), or do without its tests"
  exit 0
fi
say "installing PostgreSQL"
# The package would start a server of its own at boot; nobody asked for one.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends postgresql; } >&2; then
  say "PostgreSQL could not be installed: its tests will be skipped"
fi
