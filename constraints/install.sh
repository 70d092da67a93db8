#!/usr/bin/env bash
# Make the virtual environment: constraints/install.sh DIR VARIANT   (cpu | cu13 | cu12)
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

case $variant in
  cpu)
    # The CPU build of torch: from pip's own sources where they have it, else from PyTorch's CPU index.
    torch=$(grep '^torch==' constraints/cpu.txt)
    say "installing $torch"
    "$venv/bin/python" -c "import torch, sys; sys.exit('torch==' + torch.__version__ != '$torch')" 2>/dev/null ||
      pip install --no-deps "$torch" 2>/dev/null ||
      pip install --no-deps "$torch" --index-url https://download.pytorch.org/whl/cpu
    say "installing $(grep -c == constraints/cpu.txt) pinned packages (3 GB on disk)"
    # The list is complete and is installed as it stands: resolving it would bring back torchvision and triton, whose
    # wheels break `import vllm` on a CPU build of torch.
    # Compiling every module of 3 GB to bytecode costs a minute, and most are never imported.
    pip install --no-deps --no-compile --requirement constraints/cpu.txt
    pip install --no-deps --no-build-isolation --editable .
    ;;
  cu13 | cu12)
    pip install --constraint "constraints/$variant.txt" --requirement "constraints/$variant.txt" --editable '.[data,report,wandb,dev]'
    ;;
  *)
    say "VARIANT=$variant: expected cpu, cu13 or cu12"
    exit 2
    ;;
esac
# pip's own message on a broken set is long; the import is the proof.
"$venv/bin/python" -c 'import btrm.stages'
say "$venv is ready ($variant)"
