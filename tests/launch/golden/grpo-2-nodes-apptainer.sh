#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=8
#SBATCH --job-name=btrm-S1-grpo
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=512GB
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/study/.jobs/S1/logs/%j_0_log.out
#SBATCH --partition=low
#SBATCH --requeue
#SBATCH --signal=URG@120
#SBATCH --time=1440

# setup
trap 'exit 143' TERM  # Slurm ends the job: it decides alone whether the job comes back
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONUSERBASE VIRTUAL_ENV CONDA_PREFIX CONDA_DEFAULT_ENV LD_PRELOAD {APPTAINER,SINGULARITY}ENV_{PYTHONHOME,PYTHONPATH,PYTHONSTARTUP,PYTHONUSERBASE,VIRTUAL_ENV,CONDA_PREFIX,CONDA_DEFAULT_ENV,LD_PRELOAD} {APPTAINER,SINGULARITY}_{CLEANENV,CONTAIN,CONTAINALL}
image_check() {
  found=$(stat -Lc '%i %s %.9Y %.9Z' /images/btrm.sif 2>&1)
  [ "$found" = '12 345 6789' ] || (
    { mkdir -p /runs/study/.jobs/S1/images && exec 9>> /runs/study/.jobs/S1/images/"$(uname -n)" && flock -w 900 9; } 2>/dev/null
    [ "$(cat /runs/study/.jobs/S1/images/"$(uname -n)" 2>/dev/null)" = "$found" ] && exit
    sha256sum --check --status <<< '5555555555555555555555555555555555555555555555555555555555555555  /images/btrm.sif' || exit
    echo "$found" > /runs/study/.jobs/S1/images/"$(uname -n)" || true
  ) || { echo 'btrm: image_changed: /images/btrm.sif is not there, or is not what was submitted with (sha256 5555555555555555555555555555555555555555555555555555555555555555), on' "$(uname -n)"; return 78; }
}
export -f image_check; srun --export=ALL --kill-on-bad-exit=0 bash -c image_check || exit
unset -f image_check
mounts="$PWD:$PWD"
unset TMPDIR
export PYTHONUNBUFFERED=1
export PYTHONNOUSERSITE=1
export PYTHONSAFEPATH=1
export PYTHONPATH=/runs/study/.code/0123456789abcdef
export HF_HUB_OFFLINE=1
export HF_DATASETS_OFFLINE=1
export APPTAINERENV_PYTHONPATH=/runs/study/.code/0123456789abcdef
export BTRM_IMAGE=/images/btrm.sif
export BTRM_IMAGE_SHA256=5555555555555555555555555555555555555555555555555555555555555555
export XDG_CACHE_HOME=/runs/study/.cache
export MODELSCOPE_CACHE=/runs/study/.cache/modelscope
export TRITON_CACHE_DIR=/runs/study/.cache/triton
export HF_HOME=/home/me/huggingface
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + (SLURM_JOB_ID + 997 * ${SLURM_RESTART_COUNT:-0}) % 12000))
export MASTER_ADDR MASTER_PORT

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/study/.jobs/S1/logs/%j_%t_log.out --kill-on-bad-exit=1 --export=ALL apptainer -q exec --no-home --nv --bind /data --bind /scratch:/scratch:ro --bind /runs/study --bind /runs/study/.code/0123456789abcdef --bind /home/me/huggingface --bind "$mounts" --pwd "$PWD" --writable-tmpfs /images/btrm.sif python -m btrm.launch.inside -m btrm.launch.job /runs/study/.jobs/S1 grpo run 0


# teardown
code=$?
mark=/runs/study/.jobs/S1/requeue/"$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
if [ -e "$mark" ]; then
  rm -f "$mark"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
exit "$code"
