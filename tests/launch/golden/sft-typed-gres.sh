#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --constraint='ib&h100'
#SBATCH --cpus-per-task=64
#SBATCH --gres=gpu:h100:8
#SBATCH --hold
#SBATCH --job-name=btrm-S1-sft
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/study/.jobs/S1/logs/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --requeue
#SBATCH --reservation=tuesday
#SBATCH --signal=URG@120
#SBATCH --time=1440

# setup
trap 'exit 143' TERM  # Slurm ends the job: it decides alone whether the job comes back
umask 007
module load python/3.11
export PYTHONUNBUFFERED=1
export PYTHONNOUSERSITE=1
export PYTHONSAFEPATH=1
export PYTHONPATH=/runs/study/.code/0123456789abcdef
export HF_HOME='/scratch/my cache'
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output /runs/study/.jobs/S1/logs/%j_%t_log.out --kill-on-bad-exit=1 --export=ALL /opt/python -m btrm.launch.job /runs/study/.jobs/S1 sft run 0


# teardown
code=$?
mark=/runs/study/.jobs/S1/requeue/"$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"
if [ -e "$mark" ]; then
  rm -f "$mark"
  scontrol requeue "$SLURM_JOB_ID" && sleep 60
fi
exit "$code"
