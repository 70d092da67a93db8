#!/bin/sh
# The system packages of an image, where its base lacks them: system.sh PYTHON. Without a network, take a base that has
# them. A compiler and Python's headers stay in the image: triton, deepspeed and flashinfer compile at run time.
set -eu
python=$1
missing=
for need in "$python:$python" "g++:g++" "patch:patch"; do
    command -v "${need%%:*}" > /dev/null || missing="$missing ${need##*:}"
done
"$python" -c 'import ensurepip' 2> /dev/null || missing="$missing $python-venv"
"$python" -c 'import sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
    2> /dev/null || missing="$missing $python-dev"
ldconfig -p | grep -q 'libnuma\.so\.1' || missing="$missing libnuma1"
[ -n "$missing" ] || exit 0
echo "btrm: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of names
apt-get install -y -qq --no-install-recommends ca-certificates $missing
rm -rf /var/lib/apt/lists/*
