#!/bin/bash

# Parameters
#SBATCH --array=0-999%32
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --job-name=btrm-S1-judge.0
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=8GB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/study/.jobs/S1/logs/%A_%a_0_log.out
#SBATCH --partition=low
#SBATCH --requeue
#SBATCH --signal=URG@120
#SBATCH --time=240

# setup
trap 'exit 143' TERM  # Slurm ends the job: it decides alone whether the job comes back
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONUSERBASE VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV LD_PRELOAD LD_LIBRARY_PATH
image_check() {
  found=$(stat -Lc '%i %s %.9Y %.9Z' /images/btrm.sqsh 2>&1)
  [ "$found" = '12 345 6789' ] || (
    { mkdir -p /runs/study/.jobs/S1/images && exec 9>> /runs/study/.jobs/S1/images/"$(uname -n)" && flock -w 900 9; } 2>/dev/null
    [ "$(cat /runs/study/.jobs/S1/images/"$(uname -n)" 2>/dev/null)" = "$found" ] && exit
    sha256sum --check --status <<< '5555555555555555555555555555555555555555555555555555555555555555  /images/btrm.sqsh' || exit
    echo "$found" > /runs/study/.jobs/S1/images/"$(uname -n)" || true
  ) || { echo 'btrm: image_changed: /images/btrm.sqsh is not there, or is not what was submitted with (sha256 5555555555555555555555555555555555555555555555555555555555555555), on' "$(uname -n)"; return 78; }
}
image_check || exit
unset -f image_check
mounts="$PWD:$PWD"
mkdir -p "$HOME/$USER/\`x\`" 2>/dev/null
[ ! -d "$HOME/$USER/\`x\`" ] || mounts="$mounts,$HOME/$USER/\`x\`:$HOME/$USER/\`x\`"
[ ! -d "$TMPDIR" ] || mounts="$mounts,$TMPDIR:$TMPDIR"
export PYTHONUNBUFFERED=1
export PYTHONNOUSERSITE=1
export PYTHONSAFEPATH=1
export PYTHONPATH=/runs/study/.code/0123456789abcdef
export HF_HUB_OFFLINE=1
export HF_DATASETS_OFFLINE=1
export BTRM_IMAGE=/images/btrm.sqsh
export BTRM_IMAGE_SHA256=5555555555555555555555555555555555555555555555555555555555555555
export XDG_CACHE_HOME=/runs/study/.cache
export MODELSCOPE_CACHE=/runs/study/.cache/modelscope
export TRITON_CACHE_DIR=/runs/study/.cache/triton
export HF_HOME=/home/me/huggingface
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/study/.jobs/S1/logs/%A_%a_%t_log.out --kill-on-bad-exit=1 --export=ALL --container-image=/images/btrm.sqsh --no-container-mount-home --container-env=BTRM_IMAGE,BTRM_IMAGE_SHA256,HF_DATASETS_OFFLINE,HF_HOME,HF_HUB_OFFLINE,MASTER_ADDR,MASTER_PORT,MODELSCOPE_CACHE,PYTHONNOUSERSITE,PYTHONPATH,PYTHONSAFEPATH,PYTHONUNBUFFERED,TRITON_CACHE_DIR,XDG_CACHE_HOME --container-mounts=/data:/data,/scratch:/scratch:ro,/runs/study:/runs/study,/runs/study/.code/0123456789abcdef:/runs/study/.code/0123456789abcdef,/home/me/huggingface:/home/me/huggingface,"$mounts" --container-workdir="$PWD" python -m btrm.launch.inside -m btrm.launch.job /runs/study/.jobs/S1 judge array 0


# teardown
code=$?
mark=/runs/study/.jobs/S1/requeue/"$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
if [ -e "$mark" ]; then
  rm -f "$mark"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
exit "$code"
