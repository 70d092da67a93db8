#!/usr/bin/env bash
# Make the virtual environment: setup/install.sh DIR VARIANT   (cpu | cu13 | cu12)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 variant=$2 python=${PYTHON:-python3}
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
say() { echo "btrm: $*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "Python >= 3.11 is needed, $("$python" --version) found; set PYTHON=/path/to/python3.11"
  exit 1
}
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  minor=$("$python" -c 'import sys; print(f"python3.{sys.version_info.minor}")')
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $minor-venv"
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$minor-venv"
  else
    say "python venv support is missing; as root: apt-get install $minor-venv"
    exit 1
  fi
fi
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"

locks=containers/locks
case $variant in
  cpu | cu13 | cu12) ;;
  *)
    say "VARIANT=$variant: expected cpu, cu13 or cu12"
    exit 2
    ;;
esac
# The locks are complete and are installed as they stand: resolving the CPU's would bring back torchvision and triton,
# whose wheels break `import vllm` on a CPU build of torch. Compiling every module of 3 GB to bytecode costs a minute,
# and most are never imported.
install() { pip install --no-deps --no-compile --require-hashes "$@"; }
if [ "$variant" = cpu ]; then
  # The CPU build of torch: from pip's own sources where they have it, else from PyTorch's CPU index.
  torch=$(mktemp)
  trap 'rm -f "$torch"' EXIT
  awk '/^torch==/ { on = 1 } on { print } on && !/\\$/ { exit }' $locks/cpu.lock >"$torch"
  say "installing $(head -n 1 "$torch" | cut -d ' ' -f 1)"
  install --requirement "$torch" 2>/dev/null ||
    install --requirement "$torch" --index-url https://download.pytorch.org/whl/cpu
fi
say "installing $(grep -c '^[a-z0-9].*==' "$locks/$variant.lock") pinned packages (3 to 10 GB on disk)"
install --requirement "$locks/$variant.lock"
if [ "$variant" = cpu ]; then
  install --requirement $locks/dev.lock
  pip install --no-deps --no-build-isolation --editable .
else
  pip install --no-deps --editable .
fi
# pip's own message on a broken set is long; the import is the proof.
"$venv/bin/python" -c 'import btrm.stages'
say "$venv is ready ($variant)"
