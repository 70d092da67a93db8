#!/bin/sh
# The packages of an image, from a folder of wheels alone: packages.sh PYTHON LOCK WHEELS VENV
set -eu
python=$1 lock=$2 wheels=$3 venv=$4

"$python" -m venv "$venv"
install() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-cache-dir --quiet install --root-user-action ignore \
        --no-index --find-links "$wheels" --no-deps --require-hashes --no-build-isolation --no-compile --requirement "$1"
}
# What the source distributions of the set are built with comes first.
entry() { awk -v name="$1==" 'index($0, name) == 1 { on = 1 } on { print } on && !/\\$/ { exit }' "$lock"; }
tools=$(mktemp)
{ entry setuptools; entry wheel; } > "$tools"
install "$tools"
rm "$tools"
install "$lock"
