# What a batch script does after its ranks have ended; script.py puts it at the end of every script, from the first empty
# line on, and fills in EXCLUDE, ATTEMPTS and LOG. The lines before it have set job, rc and told.
# shellcheck shell=bash disable=SC2086,SC2154

bingo attempt end "$job" $rc
decision=$?
again=
case $decision in
  75 | 76) again=yes ;;
  0 | 65) ;;
  *) # The helper broke, or can start no container once Slurm has ended this attempt. A few more attempts then, but none
    # after a `scancel`; a requeue and a preemption start it again anyway.
    if [ -z "$told" ] || tail -n 20 LOG | grep -q "DUE TO TIME LIMIT"; then
      [ $rc = 0 ] || [ $rc = 65 ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 3 ] || again=yes
    fi
    ;;
esac
if [ -n "$again" ]; then
  # read first: the signal that follows a requeue ends whatever this script has started
  [ $decision != 76 ] || slow=EXCLUDE$(cat "$job"/attempts/ATTEMPTS-*/exclude | sort -u | paste -sd, -)
  scontrol requeue "$SLURM_JOB_ID"
  if [ $decision = 76 ]; then
    for _ in 1 2 3 4 5; do scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$slow" && break; sleep 0.5; done
  fi
fi
[ -z "$told" ] || wait
exit $rc
