#!/usr/bin/env bash
# The system packages that tests need: a real Slurm, a registry, a static shell, GNU patch, a browser. Root on Debian or
# Ubuntu gets them; others are told.
set -euo pipefail
say() { echo "btrm: $*" >&2; }

# command:package; a normal user's PATH often lacks the sbin folders.
needs="slurmctld:slurmctld slurmd:slurmd sinfo:slurm-client munged:munge slurmdbd:slurmdbd mariadbd:mariadb-server-core"
needs+=" docker-registry:docker-registry busybox:busybox-static patch:patch"
# Ubuntu's chromium is a snap, for which nothing here waits: any browser of the kind that is there will do.
if ! type -P chromium chromium-browser google-chrome >/dev/null && grep -qs '^ID=debian' /etc/os-release; then
  needs+=" chromium:chromium"
fi
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=()
for need in $needs; do
  type -P "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

install="apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" != 0 ] || ! type -P apt-get >/dev/null; then
  say "the tests that need them are skipped, not installed: ${missing[*]} (as root on Debian or Ubuntu: $install)"
  exit 0
fi
say "installing ${missing[*]}"
# The packages would start their services, whose place is the tests' own clusters: this is Debian's way to say no.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod +x $policy
  trap 'rm -f $policy' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
if ! log=$(apt-get update -qq 2>&1 && $install -qq 2>&1); then
  say "could not install ${missing[*]}, the tests that need them are skipped: $(tail -n 3 <<<"$log")"
fi
