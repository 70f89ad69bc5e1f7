# prepare: sbatch --parsable ROOT/submissions/ID/jobs/prepare/script.sh
#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=16
#SBATCH --job-name=prepare
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=65536M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=ROOT/submissions/ID/jobs/prepare/%j_batch.log
#SBATCH --partition=cpu
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --time=240

# setup
export NCCL_SOCKET_IFNAME=ib0
export PYTHONPATH=ROOT/submissions/ID/code${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1  # the snapshot, not the folder that the job was sent from
job=ROOT/submissions/ID/jobs/prepare
bingo() { local verb=$1; shift; srun --ntasks=1 --nodes=1 --overlap --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs /opt/bingo/bin/python -m "bingo.launch.job.$verb" "$@"; }
# Slurm ends this attempt with SIGTERM: stay to write down how it went.
told=
trap 'told=TERM' TERM
echo "bingo: attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"
bingo attempt begin "$job"

# command
export SUBMITIT_EXECUTOR=slurm
nodes=1
srun --nodes=$nodes --ntasks=$((nodes * 1)) --kill-on-bad-exit=1 --wait=20 --cpus-per-task=16 --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs --unbuffered --output="$job"/%j_%t_log.out /opt/bingo/bin/python -u -m bingo.launch.job.worker "$job" &
wait $!
rc=$?
if [ -n "$told" ]; then # that ended the wait; ranks that do not leave soon are killed together with this script
  for _ in 1 2 3 4 5; do kill -0 $! 2> /dev/null && sleep 1; done
  kill -0 $! 2> /dev/null || { wait $!; rc=$?; }
fi


# teardown
bingo attempt end "$job" $rc
decision=$?
again=
case $decision in
  75 | 76) again=yes ;;
  0 | 65) ;;
  *) # The helper broke, or can start no container once Slurm has ended this attempt. A few more attempts then, but none
    # after a `scancel`; a requeue and a preemption start it again anyway.
    if [ -z "$told" ] || tail -n 20 "$job/${SLURM_JOB_ID}_batch.log" | grep -q "DUE TO TIME LIMIT"; then
      [ $rc = 0 ] || [ $rc = 65 ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 3 ] || again=yes
    fi
    ;;
esac
if [ -n "$again" ]; then
  # read first: the signal that follows a requeue ends whatever this script has started
  [ $decision != 76 ] || slow=$(cat "$job"/attempts/"${SLURM_JOB_ID}"-*/exclude | sort -u | paste -sd, -)
  scontrol requeue "$SLURM_JOB_ID"
  if [ $decision = 76 ]; then
    for _ in 1 2 3 4 5; do scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$slow" && break; sleep 0.5; done
  fi
fi
[ -z "$told" ] || wait
exit $rc

# teacher: sbatch --parsable --dependency=afterok:<prepare> ROOT/submissions/ID/jobs/teacher/script.sh
#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=96
#SBATCH --gpus-per-node=8
#SBATCH --job-name=teacher
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=409600M
#SBATCH --nodes=1-4
#SBATCH --open-mode=append
#SBATCH --output=ROOT/submissions/ID/jobs/teacher/%j_batch.log
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --time=240

# setup
export NCCL_SOCKET_IFNAME=ib0
export PYTHONPATH=ROOT/submissions/ID/code${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1  # the snapshot, not the folder that the job was sent from
job=ROOT/submissions/ID/jobs/teacher
bingo() { local verb=$1; shift; srun --ntasks=1 --nodes=1 --overlap --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs /opt/bingo/bin/python -m "bingo.launch.job.$verb" "$@"; }
# Slurm ends this attempt with SIGTERM: stay to write down how it went.
told=
trap 'told=TERM' TERM
echo "bingo: attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"
bingo attempt begin "$job"

# command
export SUBMITIT_EXECUTOR=slurm
# the most nodes here among which 4 nodes' worth of ranks divides evenly
nodes=$SLURM_JOB_NUM_NODES
while [ $((4 % nodes)) -ne 0 ]; do nodes=$((nodes - 1)); done
srun --nodes=$nodes --ntasks=$((nodes * 8)) --kill-on-bad-exit=1 --wait=20 --cpus-per-task=12 --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs /opt/bingo/bin/python -u -m bingo.launch.job.preflight "$job"
rc=$?
if [ $rc = 0 ]; then
srun --nodes=$nodes --ntasks=$((nodes * 8)) --kill-on-bad-exit=1 --wait=20 --cpus-per-task=12 --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs --unbuffered --output="$job"/%j_%t_log.out /opt/bingo/bin/python -u -m bingo.launch.job.worker "$job" &
wait $!
rc=$?
if [ -n "$told" ]; then # that ended the wait; ranks that do not leave soon are killed together with this script
  for _ in 1 2 3 4 5; do kill -0 $! 2> /dev/null && sleep 1; done
  kill -0 $! 2> /dev/null || { wait $!; rc=$?; }
fi
fi


# teardown
bingo attempt end "$job" $rc
decision=$?
again=
case $decision in
  75 | 76) again=yes ;;
  0 | 65) ;;
  *) # The helper broke, or can start no container once Slurm has ended this attempt. A few more attempts then, but none
    # after a `scancel`; a requeue and a preemption start it again anyway.
    if [ -z "$told" ] || tail -n 20 "$job/${SLURM_JOB_ID}_batch.log" | grep -q "DUE TO TIME LIMIT"; then
      [ $rc = 0 ] || [ $rc = 65 ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 3 ] || again=yes
    fi
    ;;
esac
if [ -n "$again" ]; then
  # read first: the signal that follows a requeue ends whatever this script has started
  [ $decision != 76 ] || slow=$(cat "$job"/attempts/"${SLURM_JOB_ID}"-*/exclude | sort -u | paste -sd, -)
  scontrol requeue "$SLURM_JOB_ID"
  if [ $decision = 76 ]; then
    for _ in 1 2 3 4 5; do scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$slow" && break; sleep 0.5; done
  fi
fi
[ -z "$told" ] || wait
exit $rc

# bags: sbatch --parsable --dependency=afterok:<prepare>:<teacher> ROOT/submissions/ID/jobs/bags/script.sh
#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=16
#SBATCH --job-name=bags
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=65536M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=ROOT/submissions/ID/jobs/bags/%j_batch.log
#SBATCH --partition=cpu
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --time=240

# setup
export NCCL_SOCKET_IFNAME=ib0
export PYTHONPATH=ROOT/submissions/ID/code${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1  # the snapshot, not the folder that the job was sent from
job=ROOT/submissions/ID/jobs/bags
bingo() { local verb=$1; shift; srun --ntasks=1 --nodes=1 --overlap --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs /opt/bingo/bin/python -m "bingo.launch.job.$verb" "$@"; }
# Slurm ends this attempt with SIGTERM: stay to write down how it went.
told=
trap 'told=TERM' TERM
echo "bingo: attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"
bingo attempt begin "$job"

# command
export SUBMITIT_EXECUTOR=slurm
nodes=1
srun --nodes=$nodes --ntasks=$((nodes * 1)) --kill-on-bad-exit=1 --wait=20 --cpus-per-task=16 --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs --unbuffered --output="$job"/%j_%t_log.out /opt/bingo/bin/python -u -m bingo.launch.job.worker "$job" &
wait $!
rc=$?
if [ -n "$told" ]; then # that ended the wait; ranks that do not leave soon are killed together with this script
  for _ in 1 2 3 4 5; do kill -0 $! 2> /dev/null && sleep 1; done
  kill -0 $! 2> /dev/null || { wait $!; rc=$?; }
fi


# teardown
bingo attempt end "$job" $rc
decision=$?
again=
case $decision in
  75 | 76) again=yes ;;
  0 | 65) ;;
  *) # The helper broke, or can start no container once Slurm has ended this attempt. A few more attempts then, but none
    # after a `scancel`; a requeue and a preemption start it again anyway.
    if [ -z "$told" ] || tail -n 20 "$job/${SLURM_JOB_ID}_batch.log" | grep -q "DUE TO TIME LIMIT"; then
      [ $rc = 0 ] || [ $rc = 65 ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 3 ] || again=yes
    fi
    ;;
esac
if [ -n "$again" ]; then
  # read first: the signal that follows a requeue ends whatever this script has started
  [ $decision != 76 ] || slow=$(cat "$job"/attempts/"${SLURM_JOB_ID}"-*/exclude | sort -u | paste -sd, -)
  scontrol requeue "$SLURM_JOB_ID"
  if [ $decision = 76 ]; then
    for _ in 1 2 3 4 5; do scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$slow" && break; sleep 0.5; done
  fi
fi
[ -z "$told" ] || wait
exit $rc

# seed 0: sbatch --parsable --dependency=afterok:<prepare>:<teacher>:<bags> ROOT/submissions/ID/jobs/seed-0/script.sh
#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=96
#SBATCH --gpus-per-node=8
#SBATCH --job-name=seed-0
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=409600M
#SBATCH --nodes=1-4
#SBATCH --open-mode=append
#SBATCH --output=ROOT/submissions/ID/jobs/seed-0/%j_batch.log
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --time=240

# setup
export NCCL_SOCKET_IFNAME=ib0
export PYTHONPATH=ROOT/submissions/ID/code${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1  # the snapshot, not the folder that the job was sent from
job=ROOT/submissions/ID/jobs/seed-0
bingo() { local verb=$1; shift; srun --ntasks=1 --nodes=1 --overlap --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs /opt/bingo/bin/python -m "bingo.launch.job.$verb" "$@"; }
# Slurm ends this attempt with SIGTERM: stay to write down how it went.
told=
trap 'told=TERM' TERM
echo "bingo: attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"
bingo attempt begin "$job"

# command
export SUBMITIT_EXECUTOR=slurm
# the most nodes here among which 4 nodes' worth of ranks divides evenly
nodes=$SLURM_JOB_NUM_NODES
while [ $((4 % nodes)) -ne 0 ]; do nodes=$((nodes - 1)); done
srun --nodes=$nodes --ntasks=$((nodes * 8)) --kill-on-bad-exit=1 --wait=20 --cpus-per-task=12 --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs /opt/bingo/bin/python -u -m bingo.launch.job.preflight "$job"
rc=$?
if [ $rc = 0 ]; then
srun --nodes=$nodes --ntasks=$((nodes * 8)) --kill-on-bad-exit=1 --wait=20 --cpus-per-task=12 --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs --unbuffered --output="$job"/%j_%t_log.out /opt/bingo/bin/python -u -m bingo.launch.job.worker "$job" &
wait $!
rc=$?
if [ -n "$told" ]; then # that ended the wait; ranks that do not leave soon are killed together with this script
  for _ in 1 2 3 4 5; do kill -0 $! 2> /dev/null && sleep 1; done
  kill -0 $! 2> /dev/null || { wait $!; rc=$?; }
fi
fi


# teardown
bingo attempt end "$job" $rc
decision=$?
again=
case $decision in
  75 | 76) again=yes ;;
  0 | 65) ;;
  *) # The helper broke, or can start no container once Slurm has ended this attempt. A few more attempts then, but none
    # after a `scancel`; a requeue and a preemption start it again anyway.
    if [ -z "$told" ] || tail -n 20 "$job/${SLURM_JOB_ID}_batch.log" | grep -q "DUE TO TIME LIMIT"; then
      [ $rc = 0 ] || [ $rc = 65 ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 3 ] || again=yes
    fi
    ;;
esac
if [ -n "$again" ]; then
  # read first: the signal that follows a requeue ends whatever this script has started
  [ $decision != 76 ] || slow=$(cat "$job"/attempts/"${SLURM_JOB_ID}"-*/exclude | sort -u | paste -sd, -)
  scontrol requeue "$SLURM_JOB_ID"
  if [ $decision = 76 ]; then
    for _ in 1 2 3 4 5; do scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$slow" && break; sleep 0.5; done
  fi
fi
[ -z "$told" ] || wait
exit $rc

# export: sbatch --parsable --dependency=afterok:<seed 0> ROOT/submissions/ID/jobs/export/script.sh
#!/bin/bash

# Parameters
#SBATCH --cpus-per-task=16
#SBATCH --job-name=export
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=65536M
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=ROOT/submissions/ID/jobs/export/%j_batch.log
#SBATCH --partition=cpu
#SBATCH --requeue
#SBATCH --signal=USR2@180
#SBATCH --time=240

# setup
export NCCL_SOCKET_IFNAME=ib0
export PYTHONPATH=ROOT/submissions/ID/code${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1  # the snapshot, not the folder that the job was sent from
job=ROOT/submissions/ID/jobs/export
bingo() { local verb=$1; shift; srun --ntasks=1 --nodes=1 --overlap --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs /opt/bingo/bin/python -m "bingo.launch.job.$verb" "$@"; }
# Slurm ends this attempt with SIGTERM: stay to write down how it went.
told=
trap 'told=TERM' TERM
echo "bingo: attempt ${SLURM_RESTART_COUNT:-0} on $SLURM_JOB_NODELIST"
bingo attempt begin "$job"

# command
export SUBMITIT_EXECUTOR=slurm
nodes=1
srun --nodes=$nodes --ntasks=$((nodes * 1)) --kill-on-bad-exit=1 --wait=20 --cpus-per-task=16 --container-image=/shared/images/bingo.sqsh --container-mounts=/shared/runs:/shared/runs,/shared/data:/shared/data --container-workdir=/shared/runs --unbuffered --output="$job"/%j_%t_log.out /opt/bingo/bin/python -u -m bingo.launch.job.worker "$job" &
wait $!
rc=$?
if [ -n "$told" ]; then # that ended the wait; ranks that do not leave soon are killed together with this script
  for _ in 1 2 3 4 5; do kill -0 $! 2> /dev/null && sleep 1; done
  kill -0 $! 2> /dev/null || { wait $!; rc=$?; }
fi


# teardown
bingo attempt end "$job" $rc
decision=$?
again=
case $decision in
  75 | 76) again=yes ;;
  0 | 65) ;;
  *) # The helper broke, or can start no container once Slurm has ended this attempt. A few more attempts then, but none
    # after a `scancel`; a requeue and a preemption start it again anyway.
    if [ -z "$told" ] || tail -n 20 "$job/${SLURM_JOB_ID}_batch.log" | grep -q "DUE TO TIME LIMIT"; then
      [ $rc = 0 ] || [ $rc = 65 ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 3 ] || again=yes
    fi
    ;;
esac
if [ -n "$again" ]; then
  # read first: the signal that follows a requeue ends whatever this script has started
  [ $decision != 76 ] || slow=$(cat "$job"/attempts/"${SLURM_JOB_ID}"-*/exclude | sort -u | paste -sd, -)
  scontrol requeue "$SLURM_JOB_ID"
  if [ $decision = 76 ]; then
    for _ in 1 2 3 4 5; do scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$slow" && break; sleep 0.5; done
  fi
fi
[ -z "$told" ] || wait
exit $rc

