#!/usr/bin/env bash
# Make the virtual environment: setup/install.sh DIR VARIANT   (cpu | cu13 | cu12)
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 variant=$2 python=${PYTHON:-python3}
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
say() { echo "btrm: $*" >&2; }

case $variant in
  cpu) least=11 ;;
  cu13 | cu12) least=12 ;; # the locks' own Python
  *)
    say "VARIANT=$variant: expected cpu, cu13 or cu12"
    exit 2
    ;;
esac
"$python" -c "import sys; sys.exit(sys.version_info < (3, $least))" || {
  say "Python >= 3.$least is needed, $("$python" --version) found; set PYTHON=/path/to/python3.$least"
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

lock=containers/locks/$variant.lock
# The locks are complete and are installed as they stand: resolving the CPU's would bring back torchvision and triton,
# whose wheels break `import vllm` on a CPU build of torch. Compiling every module of 3 GB to bytecode costs a minute,
# and most are never imported.
install() { pip install --no-deps --no-compile --no-build-isolation --require-hashes "$@"; }
entry() { awk -v name="$1==" 'index($0, name) == 1 { on = 1 } on { print } on && !/\\$/ { exit }' "$lock"; }
first=$(mktemp)
trap 'rm -f "$first"' EXIT
# What the source distributions of the set are built with.
{ entry setuptools; entry wheel; } >"$first"
install --requirement "$first"
if [ "$variant" = cpu ]; then
  # The CPU build of torch: from pip's own sources where they have it, else from PyTorch's CPU index.
  entry torch >"$first"
  say "installing $(head -n 1 "$first" | cut -d ' ' -f 1)"
  install --requirement "$first" 2>/dev/null ||
    install --requirement "$first" --index-url https://download.pytorch.org/whl/cpu
fi
say "installing $(grep -c '^[a-z0-9].*==' "$lock") pinned packages (3 to 10 GB on disk)"
install --requirement "$lock"
[ "$variant" != cpu ] || install --requirement containers/locks/dev.lock
pip install --no-deps --no-build-isolation --editable .
# pip's own message on a broken set is long; the import is the proof.
"$venv/bin/python" -c 'import btrm.stages'
say "$venv is ready ($variant)"
