# What a batch script does after its ranks have ended; script.py puts it at the end of every script, from the first empty
# line on, and fills in EXCLUDE. The lines before it have set job, slurm_id, rc and told.
# shellcheck shell=bash disable=SC2086,SC2154

ended() { # Slurm's own line about the end of this attempt, if there is one
  tac "$job/${slurm_id}_batch.log" 2> /dev/null | sed '/^bingo: attempt /q' | grep -m 1 -E "[*] JOB .*(CANCELLED AT|DUE TO)"
}
record() { # on a full disk the log alone
  { echo "$(date +%s)" $1 >> "$job"/attempts/"$slurm_id"-${SLURM_RESTART_COUNT:-0}/requeue; } 2> /dev/null
  echo "bingo: scontrol requeue:" $1
}
taken_back() { # Asks until Slurm has taken the job back: its controller may be away for minutes, and answers may be lost.
  local line said pause=1 over=$((SECONDS + 600))
  while :; do
    line=$(ended)
    # Slurm has, by itself or by an answer that was lost; to ask again would undo a `scancel` since then
    case $line in *"DUE TO JOB REQUEUE"*) record "accepted before"; return 0 ;; esac
    # nor may it undo one before, but for one of the script alone (`scancel --batch`)
    case $told$line in TERM*"CANCELLED AT"*"DUE TO"*) ;; TERM*"CANCELLED AT"*) goes_on || return 1 ;; esac
    [ ! -e "$job/cancelled" ] || return 1
    said=$(timeout 120 scontrol requeue "$slurm_id" 2>&1) && said=accepted
    case $said in *"ob is pending execution"*) said="accepted before" ;; esac
    record "${said:-no answer}"
    case $said in
      accepted*) return 0 ;;
      *"nvalid job id"* | *"ermission denied"* | *"presently disabled"* | *"already completing or completed"*) break ;;
    esac
    [ $SECONDS -lt $over ] || break
    sleep $pause
    [ -n "$told" ] || pause=$((pause < 16 ? 2 * pause : 16)) # a script that was told is killed soon
  done
  echo "bingo: Slurm did not take the job back; send it again with \`bingo repair $(printf %q "${job%/submissions/*}")\`"
  bingo attempt lost "$job"
  return 1
}

mkdir -p "$job"/attempts/"$slurm_id"-${SLURM_RESTART_COUNT:-0} 2> /dev/null # where no helper could do it
bingo attempt end "$job" $rc
decision=$?
for pause in 1 2 4 8 16; do # no interpreter: four starts in a hurry would be over before its storage is back
  case $told$decision in 126 | 127) sleep $pause; bingo attempt end "$job" $rc; decision=$? ;; *) break ;; esac
done
again=
case $decision in
  75 | 76) again=yes ;;
  0 | 65) ;;
  *) # The helper broke, or can start no container once Slurm has ended this attempt. A few more attempts then, but none
    # after a `scancel`; a requeue and a preemption start it again anyway.
    if [ -z "$told" ] || ended | grep -q "DUE TO TIME LIMIT"; then
      [ $rc = 0 ] || [ $rc = 65 ] || [ "${SLURM_RESTART_COUNT:-0}" -ge 3 ] || again=yes
    fi
    [ -z "$again" ] || echo "bingo: its helper ended with status $decision; it starts again"
    ;;
esac
if [ -n "$again" ]; then
  # read first: the signal that follows a requeue ends whatever this script has started
  [ $decision != 76 ] || slow=EXCLUDE$(grep -ahsxE "[A-Za-z0-9._,-]+" "$job"/attempts/"$slurm_id"-*/exclude | sort -u | paste -sd, -)
  if taken_back && [ $decision = 76 ]; then
    for _ in {1..20}; do scontrol update JobId="$slurm_id" ExcNodeList="$slow" && break; sleep 0.5; done
  fi
fi
[ -z "$told" ] || wait
exit $rc
